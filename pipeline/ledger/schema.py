"""Columns, types and units of every Parquet file that a job writes.

Only plain types, so that DuckDB, pandas and Spark read them without help. A value that does not exist is null, never 0.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bls.bitstream import Coder
from pipeline.provenance import code_version

SCHEMA_VERSION = 8  # raised with every change of a column's name, type or meaning


def _field(name: str, type_: pa.DataType, description: str, *, unit: str = "", nullable: bool = True) -> pa.Field:
    metadata = {"description": description, **({"unit": unit} if unit else {})}
    return pa.field(name, type_, nullable=nullable, metadata=metadata)


_KEY = _field("key", pa.string(), "name of the image, unique in the dataset: its path below the input", nullable=False)
_SHARD = _field("shard", pa.int32(), "number of the shard that the image belongs to", nullable=False)
_SOURCE_URI = _field("source_uri", pa.string(), "where the image was read, without credentials", nullable=False)
_STEM = _field("stem", pa.string(), "path of the restored image, without its extension", nullable=False)
_STATUS = _field("status", pa.string(), "'ok', 'kept', or why the image is quarantined", nullable=False)
_ERROR_CLASS = _field("error_class", pa.string(), "class of the error of a quarantined image")
_ERROR_MESSAGE = _field("error_message", pa.string(), "message of the error of a quarantined image")
_WIDTH = _field("width", pa.int32(), "width after EXIF orientation was applied", unit="pixel")
_HEIGHT = _field("height", pa.int32(), "height after EXIF orientation was applied", unit="pixel")
_MODE = _field("mode", pa.string(), "Pillow mode of the source image, before conversion")
_BPP = _field("bpp", pa.float64(), "8 * num_bytes / (width * height)", unit="bit/pixel")
_ESTIMATED_BPP = _field("estimated_bpp", pa.float64(), "the density's estimate of the payload", unit="bit/pixel")
_MSE_255 = _field("mse_255", pa.float64(), "mean squared error of the decoded image, samples in 0..255")
_PSNR_DB = _field("psnr_db", pa.float64(), "10 log10(255^2 / mse_255); null where mse_255 is 0", unit="dB")
_MS_SSIM = _field("ms_ssim", pa.float64(), "MS-SSIM of the decoded image; null below 161 pixels a side, or not sampled")
_SYNTHESIS_SECONDS = _field("synthesis_seconds", pa.float64(), "synthesis transform, share of its batch", unit="second")

PLAN = pa.schema(
    [
        _SHARD,
        _KEY,
        _SOURCE_URI,
        _STEM,
        _field("file", pa.string(), "tar or Parquet file that the image is in, below the input's folder"),
        _field("start", pa.int64(), "first byte of the sample in the tar, or row in the Parquet file"),
        _field("num_bytes", pa.int64(), "size of the sample in the tar, headers included", unit="byte"),
    ]
)

BITSTREAMS = pa.schema(
    [
        _KEY,
        _STEM,
        _field("bitstream", pa.binary(), "header, payload, checksum: docs/bitstream.md; null where `original` is not"),
        _MODE,
        _field("exif", pa.binary(), "EXIF of the source image, orientation tag reset to 1"),
        _field("icc_profile", pa.binary(), "ICC profile that the pixels are in; null means sRGB"),
        _field("alpha_png", pa.binary(), "alpha plane as a grayscale PNG, lossless"),
        _field("original", pa.binary(), "file of a kept image, EXIF, ICC and alpha inside; null: it has a bitstream"),
        _field("original_extension", pa.string(), "extension of that file, as .jpg"),
        _field("original_crc32", pa.int64(), "CRC-32 of that file"),
    ]
)

ORIGINAL = ("original", "original_extension", "original_crc32")
"""Columns of BITSTREAMS of an original that is kept: each has a value where `bitstream` has none."""

CARRIED = "carried"


def bitstreams_schema(carried: pa.DataType | None) -> pa.Schema:
    """Return the columns of bitstreams files, with what the input has beside each image, if it has anything."""
    if carried is None:
        return BITSTREAMS
    description = "what the input has beside the image: other columns of its row, or other members of its sample"
    return BITSTREAMS.append(_field(CARRIED, carried, description))


METRICS = pa.schema(
    [
        _KEY,
        _SOURCE_URI,
        _SHARD,
        _STATUS,
        _ERROR_CLASS,
        _ERROR_MESSAGE,
        _WIDTH,
        _HEIGHT,
        _MODE,
        _field("source_format", pa.string(), "file format of the source image"),
        _field("source_num_bytes", pa.int64(), "size of the source image", unit="byte"),
        _field("num_bytes", pa.int64(), "size of the bitstream, all included, or of a kept original", unit="byte"),
        _field("beside_num_bytes", pa.int64(), "size of EXIF, ICC and alpha beside the bitstream", unit="byte"),
        _field("carried_num_bytes", pa.int64(), "size of the carried columns or members", unit="byte"),
        _BPP,
        _ESTIMATED_BPP,
        _field("source_bpp", pa.float64(), "8 * source_num_bytes / (width * height)", unit="bit/pixel"),
        _MSE_255,
        _PSNR_DB,
        _MS_SSIM,
        _field("quality", pa.float64(), "from 1, smallest, to 8, best; of a kept image, that of the larger bitstream"),
        _field("target", pa.string(), "what the quality was searched for, such as 'psnr_db >= 34'; null: it was given"),
        _field("target_met", pa.bool_(), "whether the image meets the target; if not, no quality does"),
        _field("lmbda", pa.float64(), "weight in lmbda * 255^2 * mse + bpp"),
        _field("model_fingerprint", pa.string(), "content hash of what decodes it, hexadecimal"),
        _field("analysis_fingerprint", pa.string(), "content hash of the analysis transform that wrote it"),
        _field("coder", pa.string(), "entropy coder"),
        _field("effort", pa.int32(), "of the encoder, 0 (the analysis alone) to 3"),
        _field("verified", pa.bool_(), "the stored bitstream was decoded again and gave the same symbols; null: kept"),
        _field("fetch_seconds", pa.float64(), "waiting for storage; several images wait at a time", unit="second"),
        _field("decode_seconds", pa.float64(), "decoding the source image", unit="second"),
        _field(
            "analysis_seconds", pa.float64(), "analysis transform and refinement, share of the batch", unit="second"
        ),
        _field("entropy_encode_seconds", pa.float64(), "symbols to bitstream", unit="second"),
        _field("entropy_decode_seconds", pa.float64(), "bitstream to symbols, for verification", unit="second"),
        _SYNTHESIS_SECONDS,
        _field("quality_seconds", pa.float64(), "MSE, PSNR and MS-SSIM", unit="second"),
    ]
)

SOURCE_SIZES = ("source_num_bytes", "carried_num_bytes")
"""Columns of METRICS that add up to what the input has of an image."""
STORED_SIZES = ("num_bytes", "beside_num_bytes", "carried_num_bytes")
"""Columns of METRICS that add up to what the output has of it."""

RESTORED = pa.schema(
    [
        _KEY,
        _SHARD,
        _STATUS,
        _ERROR_CLASS,
        _ERROR_MESSAGE,
        _field("path", pa.string(), "name of the restored image: below the images folder, in its tar, or in its row"),
        _WIDTH,
        _HEIGHT,
        _field("num_bytes", pa.int64(), "size of the bitstream, or of a kept original", unit="byte"),
        _field("image_num_bytes", pa.int64(), "size of the restored image file", unit="byte"),
        _field("entropy_decode_seconds", pa.float64(), "bitstream to symbols", unit="second"),
        _SYNTHESIS_SECONDS,
        _field("image_encode_seconds", pa.float64(), "pixels to the bytes of an image file", unit="second"),
        _field("write_seconds", pa.float64(), "waiting for storage; several images wait at a time", unit="second"),
    ]
)

# Carried columns follow. `datasets` of Hugging Face reads the struct as an image.
RESTORED_IMAGES = pa.schema(
    [
        _KEY,
        _field(
            "image",
            pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]),
            "restored image: its file's content, and the name that the file would have",
        ),
        _WIDTH,
        _HEIGHT,
    ]
)

TRAINING_CURVE = pa.schema(
    [
        _field("qualities", pa.string(), "the qualities that the network serves, as 1:4.5 or 4", nullable=False),
        _field("step", pa.int32(), "optimiser steps taken; the means are over the steps since the row before"),
        _field("loss", pa.float64(), "lmbda * distortion + estimated_bpp, relaxed by noise, weighted over a range"),
        _field("estimated_bpp", pa.float64(), "the density's estimate", unit="bit/pixel"),
        _field("psnr_db", pa.float64(), "of the relaxed reconstruction, from the batch's MSE", unit="dB"),
        _field("learning_rate", pa.float64(), "of Adam"),
        _field("held_out_bpp", pa.float64(), "real bitstreams of held-out images, mean", unit="bit/pixel"),
        _field("held_out_psnr_db", pa.float64(), "decoded held-out images, mean", unit="dB"),
    ]
)

VERIFICATION = pa.schema(
    [
        _field("problem", pa.string(), "what is wrong: see docs/operations.md", nullable=False),
        _field("message", pa.string(), "what was found, and what was expected", nullable=False),
        _field("shard", pa.int32(), "number of the shard; null where the problem is not one of a shard"),
        _field("file", pa.string(), "name of the file, below the output folder"),
        _field("key", pa.string(), "name of the image, where the problem is one of an image"),
    ]
)

EVALUATION = pa.schema(
    [
        _KEY,
        _STATUS,
        _ERROR_CLASS,
        _ERROR_MESSAGE,
        _WIDTH,
        _HEIGHT,
        _field("gray", pa.bool_(), "the image is grayscale"),
        _field("codec", pa.string(), "'bls-' and an entropy coder, or another codec; null: the image cannot be read"),
        _field("quality", pa.float64(), "of our codec, from 1 to 8; of another codec its own setting"),
        _field("effort", pa.int32(), "of our encoder, 0 (the analysis alone) to 3; null: another codec"),
        _field("num_bytes", pa.int64(), "size of the bitstream or file, every byte counted", unit="byte"),
        _BPP,
        _ESTIMATED_BPP,
        _MSE_255,
        _PSNR_DB,
        _field("psnr_luma_db", pa.float64(), "PSNR of the luma; null where there is no error", unit="dB"),
        _MS_SSIM,
        _field("nlpd", pa.float64(), "normalized Laplacian pyramid distance of the luma; 0 for equal images"),
        _field("ssimulacra2", pa.float64(), "100 for equal images; null without its package, or below 8 pixels a side"),
        _field("encode_seconds", pa.float64(), "CPU time, pixels to file; null: not of one thread", unit="second"),
        _field("decode_seconds", pa.float64(), "CPU time, file to pixels; null: not of one thread", unit="second"),
    ]
)

RELAXATION = pa.schema(
    [
        _KEY,
        _STATUS,
        _ERROR_CLASS,
        _ERROR_MESSAGE,
        _WIDTH,
        _HEIGHT,
        _field("quality", pa.float64(), "from 1 to 8; null: the image cannot be read"),
        _field("noisy_mse_255", pa.float64(), "mean squared error where uniform noise stands for rounding"),
        _field("rounded_mse_255", pa.float64(), "mean squared error with rounded latents; neither is clipped"),
        _field("noisy_bpp", pa.float64(), "differential entropy of the noisy latents, estimated", unit="bit/pixel"),
        _field("rounded_bpp", pa.float64(), "code length of the rounded latents, same density", unit="bit/pixel"),
        *(
            _field(f"{c.name.lower()}_bpp", pa.float64(), f"bitstream of coder {c.value}", unit="bit/pixel")
            for c in Coder
        ),
    ]
)


def misfits(row: Mapping[str, Any], schema: pa.Schema) -> dict[str, Exception]:
    """Return the columns that cannot hold the value of a row, each with what Arrow says."""
    errors = {}
    for field in schema:
        try:
            pa.array([row.get(field.name)], field.type)
        except Exception as error:  # Arrow's conversions raise all kinds of errors
            errors[field.name] = error
    return errors


def to_parquet(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, *, metadata: Mapping[str, Any]) -> bytes:
    """Write rows as one Parquet file; absent values are null. `metadata` as in `table_to_parquet`."""
    return table_to_parquet(pa.Table.from_pylist(list(rows), schema=schema), metadata=metadata)


def table_to_parquet(table: pa.Table, *, metadata: Mapping[str, Any]) -> bytes:
    """Write a table as one Parquet file.

    `metadata` travels as key-value metadata of the file: text as it is, anything else as JSON.
    """
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    written_by = {"schema_version": str(SCHEMA_VERSION), "code_version": code_version()}
    table = table.replace_schema_metadata({**written_by, **texts})
    # Bitstreams and image files do not compress again and never repeat.
    opaque = {"bitstream", "alpha_png", "original"}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression={name: "none" if name in opaque else "zstd" for name in table.column_names},
        use_dictionary=[name for name in table.column_names if name not in opaque],
    )
    return bytes(sink.getvalue())
