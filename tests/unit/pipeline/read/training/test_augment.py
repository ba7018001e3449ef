import pytest
import torch

from pipeline.read.training.augment import CenterCrop, Compose, RandomHorizontalFlip, RandomResizedCrop, Resize, resized


def ramp(height: int, width: int) -> torch.Tensor:
    """Return an image whose planes are its row numbers, its column numbers, and 7."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, torch.full_like(rows, 7)]).to(torch.uint8)


@pytest.mark.parametrize(("height", "width"), [(100, 60), (8, 200), (1, 1)])
def test_random_windows_have_one_size_and_lie_in_the_image(height: int, width: int) -> None:
    for _ in range(20):
        x = RandomResizedCrop(16)(ramp(height, width))
        assert x.shape == (3, 16, 16) and x.dtype == torch.uint8
        assert x[0].max() < height and x[1].max() < width and (x[2] == 7).all()


def test_random_windows_have_areas_and_ratios_of_their_ranges() -> None:
    crop = RandomResizedCrop(16, scale=(0.25, 0.5), ratio=(0.5, 2.0))
    windows = [crop._window(200, 200) for _ in range(500)]
    areas = torch.tensor([height * width / 200**2 for _, _, height, width in windows])
    ratios = torch.tensor([width / height for _, _, height, width in windows])
    assert 0.24 < areas.min() < 0.27 and 0.47 < areas.max() < 0.51
    assert 0.48 < ratios.min() < 0.6 and 1.7 < ratios.max() < 2.1
    assert len({window[:2] for window in windows}) > 400


def test_an_image_too_long_gives_its_middle() -> None:
    crop = RandomResizedCrop(16, scale=(1, 1), ratio=(1, 1))
    assert crop._window(40, 400) == (0, 180, 40, 40)


def test_a_window_of_the_whole_is_a_resize() -> None:
    x = ramp(50, 50)
    assert torch.equal(RandomResizedCrop(20, scale=(1, 1), ratio=(1, 1))(x), resized(x, (20, 20)))


def test_the_smaller_side_gets_its_length() -> None:
    assert Resize(20)(ramp(40, 100)).shape == (3, 20, 50)
    assert Resize(20)(ramp(100, 40)).shape == (3, 50, 20)
    assert torch.equal(Resize(20)(ramp(20, 30)), ramp(20, 30))


def test_a_smaller_size_is_filtered() -> None:
    """Every second column is white: without a filter a quarter of the size could be all white or all black."""
    x = torch.zeros(1, 64, 64, dtype=torch.uint8)
    x[:, :, ::2] = 255
    assert (resized(x, (16, 16)).float() - 127.5).abs().max() < 20


def test_the_middle_is_cut_out_or_put_on_black() -> None:
    assert torch.equal(CenterCrop(4)(ramp(10, 7)), ramp(10, 7)[:, 3:7, 2:6])
    x = CenterCrop(6)(ramp(2, 10))
    assert torch.equal(x[:, 2:4], ramp(2, 10)[:, :, 2:8]) and not x[:, :2].any() and not x[:, 4:].any()


def test_flips_come_as_often_as_they_should() -> None:
    x = ramp(3, 4)
    assert torch.equal(RandomHorizontalFlip(1)(x), x.flip(2)) and torch.equal(RandomHorizontalFlip(0)(x), x)
    flipped = sum(not torch.equal(RandomHorizontalFlip()(x), x) for _ in range(1000))
    assert 400 < flipped < 600


def test_transforms_are_composed_and_repeat_with_a_seed() -> None:
    transform = Compose([RandomResizedCrop(8), RandomHorizontalFlip()])
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(transform(ramp(40, 50)))
    assert torch.equal(*results) and results[0].shape == (3, 8, 8)


def test_transforms_are_those_of_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2", reason="pip install torchvision to compare with it")
    x = ramp(50, 70)
    for ours, theirs in ((Resize(20), transforms.Resize(20)), (CenterCrop(20), transforms.CenterCrop(20))):
        assert (ours(x).int() - theirs(x).int()).abs().max() <= 1
