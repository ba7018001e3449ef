"""Training patches: which images are used, and that a batch depends on seed, step and place alone."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bls.training.parallel import BatchPart
from pipeline.sources.opening import open_source
from pipeline.sources.reference import ImageReference, Source
from pipeline.train.patches import MAX_KEPT_SIDE, STEPS_PER_GROUP, PatchConfig, PatchSet, read_group, read_image
from tests.images import random_fields

CONFIG = PatchConfig(patch_size=64)
WHOLE = BatchPart(0, 4, 4)


def write(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    fields = (random_fields(5, 96, seed=3) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for index, pixels in enumerate(fields):
        write(folder, f"{index}.png", pixels)
    write(folder, "gray.png", fields[0, :, :, 0])
    write(folder, "small.png", fields[0, :40])
    write(folder, "white.png", np.full((96, 96, 3), 255, np.uint8))
    (folder / "text.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return open_source(str(folder))


@pytest.fixture(scope="module")
def patches(source: Source) -> PatchSet:
    return PatchSet.read(source, source.references(), CONFIG)


def test_images_that_are_not_fit_are_counted(patches: PatchSet) -> None:
    assert dict(patches.dropped) == {"not_an_image": 1, "smaller than 64 pixels a side": 1, "over-saturated": 1}
    assert patches.keys == ["0.png", "1.png", "2.png", "3.png", "4.png", "gray.png"]
    assert all(image.shape[2] == 3 and min(image.shape[:2]) >= 64 for image in patches.images)


def test_images_are_downsampled_at_random_but_never_below_a_patch(source: Source, patches: PatchSet) -> None:
    sides = [image.shape[0] for image in patches.images]
    assert min(sides) >= 64 and len(set(sides)) > 2
    full = PatchConfig(patch_size=64, min_scale=1)
    assert {image.shape for image in PatchSet.read(source, source.references(), full).images} == {(96, 96, 3)}


def test_of_a_large_image_a_crop_is_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 1100, 3), np.uint8)
    write(tmp_path, "large.png", pixels)
    source = open_source(str(tmp_path))
    (reference,) = source.references()
    image = read_image(source, reference, PatchConfig(patch_size=512))
    assert not isinstance(image, str) and image.shape == (MAX_KEPT_SIDE, MAX_KEPT_SIDE, 3)


def test_parts_of_a_batch_are_those_of_the_whole(patches: PatchSet) -> None:
    whole = patches.batch(3, WHOLE)
    assert whole.shape == (4, 3, 64, 64) and whole.min() > -0.01 and whole.max() < 1.01
    parts = [patches.batch(3, BatchPart.of_rank(rank, 2, 4)) for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(patches.batch(4, WHOLE), whole)
    assert len(set(whole.mean((1, 2, 3)).tolist())) == 4


def test_noise_is_of_one_gray_level(patches: PatchSet) -> None:
    gray = PatchSet(CONFIG, [np.full((64, 64, 3), 100, np.uint8)])
    noise = 255 * gray.batch(0, WHOLE) - 100
    assert noise.abs().max() <= 0.501 and noise.std() == pytest.approx(12**-0.5, rel=0.02)


def test_a_stream_depends_on_group_and_place_alone(source: Source) -> None:
    references = list(source.references())
    whole, dropped = read_group(source, references, CONFIG, 5, WHOLE)
    assert whole.shape == (STEPS_PER_GROUP, 4, 64, 64, 3)
    assert sum(dropped.values()) > 0
    parts = [read_group(source, references, CONFIG, 5, BatchPart.of_rank(rank, 2, 4))[0] for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert not np.array_equal(read_group(source, references, CONFIG, 6, WHOLE)[0], whole)


def test_a_stream_of_nothing_fit_is_an_error(folder: Path, source: Source) -> None:
    with pytest.raises(ValueError, match="images in a row cannot be trained on"):
        read_group(source, [ImageReference("text.png", "text.png", "text")], CONFIG, 0, WHOLE)


def test_gray_patches_are_luma(source: Source, folder: Path) -> None:
    config = PatchConfig(patch_size=64, channels=1, min_scale=1)
    patches = PatchSet.read(source, source.references(), config)
    assert patches.images[0].shape == (96, 96, 1)
    expected = Image.open(io.BytesIO((folder / "0.png").read_bytes())).convert("L")
    assert np.abs(patches.images[0][:, :, 0].astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_whole_images_are_cropped_to_what_can_be_transformed(patches: PatchSet) -> None:
    images = list(patches.whole_images(2))
    assert len(images) == 2
    assert all(side % 16 == 0 for x in images for side in x.shape[2:])


@pytest.mark.parametrize("settings", [{"patch_size": 100}, {"patch_size": 1024}, {"min_scale": 0.0}])
def test_an_impossible_configuration_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PatchConfig(**settings)  # type: ignore[arg-type]
