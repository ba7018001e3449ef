"""Read a compressed dataset with Hugging Face `datasets`; `make demo` leaves one.

python examples/hugging_face.py [FOLDER]
"""

import sys
from pathlib import Path

from datasets import load_dataset

import pipeline

COMPRESSED = Path(__file__).parents[1] / "demo-output" / "compressed"


def main(folder: str) -> None:
    dataset = load_dataset("parquet", data_files=pipeline.bitstream_files(folder), split="train")
    stored = ["bitstream", "original", "original_extension", "original_crc32"]  # the last three are of kept originals
    dataset = dataset.select_columns(["key", *stored]).with_transform(pipeline.DecompressImages())
    for row in dataset.shuffle(seed=0):
        print(f"{row['key']} has shape {row['image'].shape} and mean {row['image'].mean():.1f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(COMPRESSED))
