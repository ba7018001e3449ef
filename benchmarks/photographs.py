"""Lay out photographs that no shipped model was fitted to: those of scikit-image that are stored without loss.

    python -m benchmarks.photographs --output photographs/
    bls-evaluate --input photographs/ --output benchmarks/results/photographs

They come with the package scikit-image itself, so nothing is downloaded. What they went through before they were stored
as PNG is not known.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import skimage
import tyro

LICENCES = {
    "astronaut.png": "NASA, public domain",
    "camera.png": "Lav Varshney, CC0",
    "chelsea.png": "Stefan van der Walt, CC0",
    "coffee.png": "Rachel Michetti, CC0",
    "coins.png": "Brooklyn Museum, no known copyright restrictions",
}


@dataclass(frozen=True)
class Photographs:
    """Copy the photographs to a folder."""

    output: Path


def main(config: Photographs) -> None:
    """Copy each and name its licence."""
    config.output.mkdir(parents=True, exist_ok=True)
    for name, licence in LICENCES.items():
        shutil.copy(Path(skimage.__file__).parent / "data" / name, config.output)
        print(f"{name}: {licence}")


if __name__ == "__main__":
    main(tyro.cli(Photographs, description=__doc__))
