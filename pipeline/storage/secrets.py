"""Secrets that open a storage are kept out of every message: passwords in URIs, keys, tokens, signatures."""

import json
import re
from urllib.parse import quote, unquote

# A secret may hold slashes; behind the colon of a host is a number.
USER_INFO = re.compile(r"\b([a-z][a-z0-9+.-]*://)(?:[^/\s]*@|[^/\s:@\[]*:(?!\d+/)[^\s@\"'<>,]*@)", re.IGNORECASE)

# What storage services and their clients put into errors and signed addresses: names of secrets with their values.
_SECRETS = re.compile(
    r"""(\b(?:aws_?)?(?:access_?key_?id|secret_?access_?key|session_?token)["']?\s*[=:>]\s*["']?
    |\bx-(?:amz|goog)-(?:signature|credential|security-token)=
    |(?<![/\w-])(?:account_?key|shared_?access_?signature|password|signature|secret|token|sig)=["']?)
    [^\s"'&<>;,)]+""",
    re.IGNORECASE | re.VERBOSE,
)

_AWS_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")


# Text before the host of URIs that this process opened, in the ways in which a message may quote it.
_known_secrets: set[str] = set()
_LONG = 8  # letters: a secret of this length is found inside of words too
_LONG_USER = 12  # a name of this length beside a password is a key


def without_credentials(text: str) -> str:
    """Drop user and password of every URI in a text, and keys, tokens and signatures: the same in every process."""
    return _AWS_KEY_ID.sub("...", _SECRETS.sub(r"\1...", USER_INFO.sub(r"\1", text)))


def remember_secrets(uri: str) -> None:
    """Take note of user and password of a URI: messages of clients quote them in other ways than as a URI."""
    if (match := USER_INFO.match(uri)) is None:
        return
    user_info = match[0].removeprefix(match[1]).removesuffix("@")
    user, _, password = user_info.partition(":")
    secrets = {user_info, password or user, user if len(user) >= _LONG_USER else ""}
    secrets.update(*(secret.split("/") for secret in tuple(secrets)))  # a client may take the first part for a host
    for secret in secrets - {""}:
        for quoted in (secret, unquote(secret), quote(secret, safe="")):
            _known_secrets.update((quoted, json.dumps(quoted)[1:-1], repr(quoted)[1:-1]))


def redact(text: str) -> str:
    """Drop secrets from a message: as `without_credentials`, and the secrets of URIs that were opened."""
    text = without_credentials(text)
    for secret in sorted(_known_secrets, key=len, reverse=True):
        if len(secret) >= _LONG:
            text = text.replace(secret, "...")
        elif secret in text:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "...", text)
    return text
