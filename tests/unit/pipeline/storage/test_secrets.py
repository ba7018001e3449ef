import json
import re
import urllib.parse

import pytest

from pipeline.storage.opening import open_folder
from pipeline.storage.secrets import redact, without_credentials


@pytest.fixture
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.secrets._known_secrets", set())


@pytest.mark.parametrize("secret", ["SECRET", "S3/RE+T/x", "p@ss", "a%2Fb", "back\\slash", "quo'te", "x"])
@pytest.mark.usefixtures("no_secrets")
def test_no_message_tells_what_a_uri_held(secret: str) -> None:
    folder = open_folder(f"memory://KEY:{secret}@bucket/photos")
    unquoted = urllib.parse.unquote(secret)
    for told in (
        f'Invalid bucket name "KEY:{secret}@bucket"',
        f"no bucket {f'KEY:{secret}@bucket'!r}",
        f"{{'user': 'KEY', 'password': {secret!r}}}",
        f"password={unquoted}, host=bucket",
        json.dumps({"password": secret}),
        f"GET http://bucket/?p={urllib.parse.quote(secret, safe='')}",
        f'Invalid bucket name "{f"KEY:{secret}".partition("/")[0]}"',
    ):
        shown = redact(told).replace("bucket", "").replace("password", "")
        assert not any(part in re.split(r"[^\w+%@'\\-]+", shown) for part in (secret, unquoted, secret.split("/")[0]))
        assert secret not in shown or len(secret) == 1
    assert str(folder) == "memory://bucket/photos"


@pytest.mark.usefixtures("no_secrets")
def test_a_secret_that_is_a_word_leaves_names_alone() -> None:
    """What is data is the same in every process, whatever URIs it opened; words that hold a short secret stay."""
    open_folder("memory://me:photos@bucket/photos")
    assert redact("cannot read /in/myphotos/a.jpg: tell me") == "cannot read /in/myphotos/a.jpg: tell me"
    assert without_credentials("memory://bucket/photos/a.jpg") == "memory://bucket/photos/a.jpg"
    assert str(open_folder("memory://bucket/photos")) == "memory://bucket/photos"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://KEY:se/cr+et/x@bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("http://host:8080/a@b.jpg", "http://host:8080/a@b.jpg"),
        ("http://[::1]:80/a@b.jpg", "http://[::1]:80/a@b.jpg"),
        ("s3://key:secret@bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("cannot open ftp://me:p@ss@host/x", "cannot open ftp://host/x"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("/local/a@b", "/local/a@b"),
        ("https://h/x.png?sig=a%2Fb&se=1", "https://h/x.png?sig=...&se=1"),
        (
            "https://h/x?X-Amz-Credential=AKIA1%2Fx&X-Amz-Signature=ab12",
            "https://h/x?X-Amz-Credential=...&X-Amz-Signature=...",
        ),
        ("<AWSAccessKeyId>abc</AWSAccessKeyId>", "<AWSAccessKeyId>...</AWSAccessKeyId>"),
        ("the key AKIAIOSFODNN7EXAMPLE is unknown", "the key ... is unknown"),
        ("DefaultEndpoints=https;AccountKey=ab+/c==;x", "DefaultEndpoints=https;AccountKey=...;x"),
        ("{'aws_secret_access_key': 'a/b+c', 'x': 1}", "{'aws_secret_access_key': '...', 'x': 1}"),
        ("s3://bucket/token=5/sig=6", "s3://bucket/token=5/sig=6"),
        ("Unexpected token: x", "Unexpected token: x"),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_credentials_stay_out_of_messages() -> None:
    with pytest.raises(ValueError, match="cannot open nope://host/x") as caught:
        open_folder("nope://me:secret@host/x")
    assert "secret" not in str(caught.value)
