import numpy as np
import pytest
import torch

from bls.ladder import QualityRange, index_of, lmbda_of
from bls.training.gains import Gains, draw_qualities
from bls.transforms.gains import StoredGains

NONE_USED = torch.zeros(50, dtype=torch.bool)


def test_gains_start_as_theory_has_them() -> None:
    gains = Gains(3, QualityRange(2, 5))
    quality = torch.tensor([2.0, 3.3, 5.0])
    expected = [(lmbda_of(q) / lmbda_of(5.0)) ** 0.5 for q in quality.tolist()]
    torch.testing.assert_close(gains(quality), torch.tensor(expected)[:, None, None, None].expand(3, 3, 1, 1))


def test_stored_gains_are_those_that_were_fitted() -> None:
    gains = Gains(4, QualityRange(2, 5))
    with torch.no_grad():
        gains.log_gain.add_(0.1 * torch.randn(gains.log_gain.shape, generator=torch.Generator().manual_seed(0)))
    stored = gains.stored()
    for quality in (2.0, 2.25, 3.875, 5.0):
        fitted = gains(torch.tensor([quality]))[0, :, 0, 0].detach().numpy()
        np.testing.assert_allclose(stored.at(index_of(quality)), fitted, rtol=1e-5)
    again = Gains(4, QualityRange(2, 5))
    again.load(StoredGains.from_arrays(stored.to_arrays()))
    torch.testing.assert_close(again.log_gain, gains.log_gain)


def test_projected_gains_rise_with_quality() -> None:
    gains = Gains(50, QualityRange(1, 8))
    with torch.no_grad():
        gains.log_gain.copy_(torch.randn(gains.log_gain.shape, generator=torch.Generator().manual_seed(0)))
    gains.project(NONE_USED)
    log_gain = torch.tensor(gains.stored().log_gain)
    assert (log_gain.diff(dim=0) >= 0).all() and (log_gain[-1] == 0).all()
    before = gains.log_gain.clone()
    gains.project(NONE_USED)
    assert torch.equal(gains.log_gain, before)


@pytest.mark.parametrize("slope", [1.0, 1.2])
def test_projected_gains_of_used_channels_are_those_of_theory_on_average(slope: float) -> None:
    gains, used = Gains(50, QualityRange(1, 8)), torch.arange(50) < 20
    theory = gains.log_gain.detach().clone()
    with torch.no_grad():
        noise = 0.01 * torch.randn(gains.log_gain.shape, generator=torch.Generator().manual_seed(0))
        gains.log_gain.mul_(0.7).add_(noise)  # as if both ends had moved inwards
    gains.project(used, slope=slope)
    torch.testing.assert_close(gains.log_gain[:, used].mean(1), slope * theory[:, 0])
    deviation = gains.log_gain[:, used] - slope * theory[:, used]
    torch.testing.assert_close(deviation, noise[:, used] - noise[:, used].mean(1, keepdim=True))


@pytest.mark.parametrize(
    ("indices", "log_gain"),
    [
        ([], np.zeros((0, 3), np.float32)),
        ([256, 256], np.zeros((2, 3), np.float32)),
        ([256], np.full((1, 3), np.nan, np.float32)),
        ([256], np.full((1, 3), 100, np.float32)),
    ],
)
def test_what_are_not_gains_is_refused(indices: list[int], log_gain: np.ndarray) -> None:
    with pytest.raises(ValueError, match="write the bundle again"):
        StoredGains(np.array(indices, np.int32), log_gain)


def test_qualities_of_a_batch_cover_the_range() -> None:
    drawn = draw_qualities(QualityRange(1, 5), 8, np.random.default_rng(0))
    assert ((drawn - 1) / 0.5).int().tolist() == list(range(8))
