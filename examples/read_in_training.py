"""Compress some photographs of scikit-image, train a small network on what is read back, and read it with Ray Data.

python examples/read_in_training.py [FOLDER]
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import pipeline
from pipeline.read.training.augment import Compose, RandomHorizontalFlip, RandomResizedCrop

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = ["astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg"]  # of several sizes, one gray
CROP = 64


def main(folder: Path) -> None:
    compressed = compress(folder)
    train(compressed)
    train_on_device(compressed)
    count_with_ray(compressed)


def compress(folder: Path) -> Path:
    """Run the compress job on the photographs, each a quarter as large as it was."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "photographs").mkdir(parents=True)
    for name in PHOTOGRAPHS:
        with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
            image.reduce(2).save(folder / "photographs" / name)
    job = [sys.executable, str(ROOT / "jobs" / "compress_dataset.py")]
    arguments = ["--input", str(folder / "photographs"), "--output", str(folder / "compressed"), "--quality", "4"]
    subprocess.run([*job, *arguments], check=True)
    return folder / "compressed"


def train(compressed: Path) -> None:
    """Fit a network on random crops. Workers of the DataLoader decode, on CPUs. Ray is not needed for that."""
    images = pipeline.CompressedImages(str(compressed), columns=["image"], transform=random_crop, shuffle=True)
    loader = DataLoader(images, batch_size=2)
    network = Network()
    for epoch in range(2):
        images.set_epoch(epoch)
        mse = [network.fit(batch["image"]) for batch in loader]
        print(f"epoch {epoch}: {len(images)} images, mean squared error {np.mean(mse):.4f}")


def train_on_device(compressed: Path) -> None:
    """Do the same where workers decode bitstreams to symbols, and the training device does the rest."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = pipeline.CompressedImages(str(compressed), columns=["symbols"], shuffle=True)
    loader = DataLoader(images, batch_size=4, num_workers=1, collate_fn=pipeline.collate_symbols)
    transform = Compose([RandomResizedCrop(CROP), RandomHorizontalFlip()])
    decode = pipeline.DeviceDecoder(images, device=device, transform=transform)
    network = Network().to(device)
    mse = [network.fit(batch["image"].float() / 255) for batch in map(decode, loader)]
    print(f"decoded on {device}: {len(images)} images, mean squared error {np.mean(mse):.4f}")


class Network(nn.Sequential):
    """A network that fills in every second pixel."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 3, 5, padding=2))
        self._optimizer = torch.optim.Adam(self.parameters(), 1e-3)

    def fit(self, x: Tensor) -> float:
        """Make a step on a batch of images; return the mean squared error before it."""
        loss = nn.functional.mse_loss(self(with_holes(x)), x)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item()


def count_with_ray(compressed: Path) -> None:
    """Decode on Ray the images below 40 dB; anything of Ray Data may follow, such as `iter_torch_batches`."""
    dataset = pipeline.read_compressed(str(compressed), where="psnr_db < 40", columns=["key", "image"])
    for row in dataset.iter_rows():
        print(f"{row['key']} has shape {row['image'].shape} and mean {row['image'].mean():.1f}")


def random_crop(image: npt.NDArray[np.uint8]) -> Tensor:
    """Give all images one shape, as a batch needs it; a grayscale image has one channel, and gets three."""
    x = torch.from_numpy(image).permute(2, 0, 1).expand(3, -1, -1).float() / 255
    top, left = (int(torch.randint(side - CROP + 1, ())) for side in x.shape[1:])
    return x[:, top : top + CROP, left : left + CROP]


def with_holes(x: Tensor) -> Tensor:
    holes = x.clone()
    holes[:, :, ::2, 1::2] = 0
    holes[:, :, 1::2, ::2] = 0
    return holes


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo-output" / "training")
