import pytest

from pipeline.provenance import provenance


def test_paths_and_passwords_stay_out_of_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/a/b/jobs/evaluate.py", "--input", "/a/kodak", "s3://me:secret@host/x", "out/y"])
    assert provenance()["command"] == "python jobs/evaluate.py --input kodak s3://host/x out/y"
    monkeypatch.setattr("sys.argv", ["/a/benchmarks/transforms.py", "--threads", "1"])
    assert provenance()["command"] == "python -m benchmarks.transforms --threads 1"


def test_versions_and_hardware_are_named() -> None:
    found = provenance()
    assert {"commit", "cpu", "num_cpus", "python", "torch", "pillow"} <= set(found)
    assert found["cpu"] and found["num_cpus"] >= 1


def test_outside_a_checkout_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("pipeline.provenance._ROOT", tmp_path)
    assert provenance()["commit"] is None
