import pytest

from pipeline.cluster.connection import ClusterError
from pipeline.console.exits import ExitCode, UsageError, WorkError, exit_code, usage


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("wrong"), ExitCode.WRONG_USAGE, "error: wrong\n"),
        (ClusterError("no room"), ExitCode.WRONG_USAGE, "error: no room\n"),
        (WorkError("dead"), ExitCode.FAILED, "error: dead\nWhat is committed stays"),
        (OSError(28, "No space left on device"), ExitCode.FAILED, "No space left on device\nWhat is committed stays"),
        (KeyboardInterrupt(), ExitCode.FAILED, "stopped. What is committed stays"),
        (OSError("ftp://me:secret@host/x"), ExitCode.FAILED, "error: ftp://host/x"),
    ],
)
def test_errors_end_in_a_message_and_a_code(
    error: BaseException, code: ExitCode, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def job() -> ExitCode:
        raise error

    assert exit_code(job) is code
    assert text in capsys.readouterr().err


def test_a_bug_is_not_dressed_up() -> None:
    def job() -> ExitCode:
        raise ValueError("of the code, not of the user")

    with pytest.raises(ValueError, match="of the code"):
        exit_code(job)


@pytest.mark.parametrize("error", [ValueError("x"), NotADirectoryError(20, "x"), PermissionError(13, "x")])
def test_errors_while_a_job_prepares_are_the_user_s(error: Exception) -> None:
    with pytest.raises(UsageError), usage():
        raise error
