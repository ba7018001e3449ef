import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compress.settings import settings_of
from pipeline.compress.worker import CompressionConfig
from pipeline.sources.opening import open_source
from pipeline.sources.reference import Columns
from pipeline.work.codec import CodecSpec

CONFIG = CompressionConfig("in", "out", CodecSpec(None, 4, "0123"))


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({"codec": replace(CONFIG.codec, quality=5)}, True),
        ({"codec": replace(CONFIG.codec, coder="static")}, True),
        ({"codec": replace(CONFIG.codec, max_pixels=9)}, True),
        ({"columns": Columns("image")}, True),
        ({"ms_ssim_share": 0.5}, True),
        ({"num_threads": 8}, False),
        ({"codec": replace(CONFIG.codec, device="cuda")}, False),
    ],
)
def test_what_changes_rows_is_a_setting_and_nothing_else(
    change: dict[str, object], is_another: bool, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    source = open_source(str(tmp_path / "in"))
    settings = settings_of(source, CONFIG)
    assert json.loads(json.dumps(settings)) == settings and settings["input"] == str(source)
    assert (settings_of(source, replace(CONFIG, **change)) != settings) is is_another  # type: ignore[arg-type]
