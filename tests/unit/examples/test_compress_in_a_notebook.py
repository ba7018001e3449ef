"""The cells of the notebook, one after another, with the one worker of its jobs in this process."""

import json
from functools import partial
from pathlib import Path

import pytest

from jobs import compress_dataset, decompress_dataset
from pipeline.cluster.run import run_to_end
from tests.inline import InlineCluster

NOTEBOOK = Path(__file__).parents[3] / "examples" / "compress_in_a_notebook.ipynb"


def test_all_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for job in (compress_dataset, decompress_dataset):
        monkeypatch.setattr(job, "Cluster", InlineCluster)
        monkeypatch.setattr(job, "run_to_end", partial(run_to_end, run=InlineCluster.run))
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
        assert cell["outputs"] == [], "outputs are large, and are those of somebody's machine"
    told = capsys.readouterr().out
    assert "3 images, " in told and "quality 2.5: " in told
    restored = {path.name for path in (tmp_path / "notebook-restored" / "images").iterdir()}
    assert restored == {"astronaut.png", "camera.png", "coffee.png"}
