import time

import pytest

from pipeline.storage.patience import SECONDS_BETWEEN_PROBES, Host, host_of


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("https://me:secret@a.example:8080/x.jpg?y", "a.example:8080"),
        ("http://a.example", "a.example"),
        ("bucket/http://a", None),
        (b"x", None),
    ],
)
def test_web_servers_have_a_host(path: object, name: str | None) -> None:
    host = host_of(path)
    assert (host and host.name) == name and host_of(path) is host


def test_one_request_goes_through_to_a_host_that_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    host = Host("a")
    assert host.may_be_asked() and host.failing_since() == 0
    host.give_up()
    clock[0] = SECONDS_BETWEEN_PROBES / 2
    assert not host.may_be_asked() and host.failing_since() == 0
    clock[0] = SECONDS_BETWEEN_PROBES
    assert [host.may_be_asked() for _ in range(3)] == [True, False, False]
    host.answered()
    assert host.may_be_asked() and host.failing_since() == clock[0]
