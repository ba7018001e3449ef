"""The settings that a compressed dataset is begun with; its manifest keeps them."""

from collections.abc import Mapping
from typing import Any

from pipeline.compress.worker import CompressionConfig
from pipeline.ledger.schema import SCHEMA_VERSION
from pipeline.sources.reference import Columns, Source


def settings_of(source: Source, config: CompressionConfig, *, curve: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings that a job and its reruns must share: other ones would make other rows.

    `curve` is the one that the qualities of a budget come from.
    """
    columns = config.columns or Columns()
    return {
        "input": str(source),
        "image_column": columns.image,
        "key_column": columns.key,
        "model_fingerprint": config.codec.model_fingerprint,
        "quality": config.quality,
        "target": config.goal,
        "curve": curve,
        "min_psnr_db": config.min_psnr_db,
        "raise_quality": config.raised_from is not None,
        "keep_smaller": config.keep_smaller,
        "coder": config.codec.coder,
        "effort": config.codec.effort,
        "max_pixels": config.codec.max_pixels,
        "ms_ssim_share": config.ms_ssim_share,
        "precision": config.codec.precision,
        "schema_version": SCHEMA_VERSION,
    }
