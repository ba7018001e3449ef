"""Compress images in your own Ray Data graph: some photographs of scikit-image, and a file that is not an image."""

from pathlib import Path

import ray.data
import skimage

import pipeline

PHOTOGRAPHS = ["chelsea.png", "rocket.jpg", "coins.png", "README.txt"]


def main() -> None:
    folder = Path(skimage.__file__).parent / "data"
    rows = [{"name": name, "image": (folder / name).read_bytes()} for name in PHOTOGRAPHS]
    compressed = ray.data.from_items(rows).map_batches(pipeline.CompressImages(quality=4), batch_size=4)
    for row in compressed.iter_rows():
        if row["status"] == "ok":
            print(f"{row['name']}: {row['num_bytes']} bytes, {row['bpp']:.3f} bpp, {row['psnr_db']:.2f} dB")
        else:
            print(f"{row['name']}: {row['status']}: {row['error_message']}")


if __name__ == "__main__":
    main()
