import pytest

from pipeline.sources.globs import Glob, expand_braces, has_magic, split_magic


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{2..0}-{a,b}", ["2-a", "2-b", "1-a", "1-b", "0-a", "0-b"]),
        ("{09..10}/*.jpg", ["09/*.jpg", "10/*.jpg"]),
        ("plain{}{x}", ["plain{}{x}"]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert list(expand_braces(pattern)) == expected


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://b/photos/**/*.jpg", ("s3://b/photos", "**/*.jpg")),
        ("/data/{000..009}.tar", ("/data", "{000..009}.tar")),
        ("/*.jpg", ("/", "*.jpg")),
        ("/a {b}/c*", ("/a {b}", "c*")),
    ],
)
def test_the_folder_above_a_pattern(uri: str, parts: tuple[str, str]) -> None:
    assert has_magic(uri)
    assert split_magic(uri) == parts


def test_question_marks_and_brackets_are_ordinary() -> None:
    assert not has_magic("/in #1 50%20?/[a]/{b}")


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.jpg", ["a.jpg", ".jpg"], ["a/b.jpg", "a.jpeg", "a_jpg"]),
        ("**/*.jpg", ["a.jpg", "a/b.jpg", "a/b/c.jpg"], ["a.png", "a/b"]),
        ("2019-*", ["2019-05/a.jpg", "2019-05/b/c.png", "2019-x"], ["2018/2019-05/a.jpg"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a/c"]),
        ("a/**/b/*", ["a/b/c", "a/x/y/b/c"], ["a/c", "a/xb/c"]),
        ("x[1]?.jpg", ["x[1]?.jpg"], ["x1a.jpg"]),
    ],
)
def test_stars(pattern: str, matching: list[str], other: list[str]) -> None:
    glob = Glob([pattern])
    assert [name for name in matching + other if glob.matches(name)] == matching
    folders = {name[:index] for name in matching for index, letter in enumerate(name) if letter == "/"}
    assert all(map(glob.enters, folders))


def test_folders_that_cannot_match_are_not_entered() -> None:
    glob = Glob(["2019-*/raw/*.png", "notes"])
    entered = [name for name in ("2019-05", "2019-05/raw", "2019-05/jpeg", "2018", "notes") if glob.enters(name)]
    assert entered == ["2019-05", "2019-05/raw", "notes"]
