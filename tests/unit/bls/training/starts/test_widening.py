import pytest
import torch

from bls.ladder import QualityRange
from bls.training.model import Model
from bls.training.starts.klt import initialize_from_klt
from bls.training.starts.widening import widened
from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig
from bls.transforms.quantization import quantize
from tests.images import random_fields

LATENTS, MORE = 8, 20
STEP = 0.02


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return random_fields(12, 128, seed=3)


@pytest.fixture(scope="module")
def narrow(x: torch.Tensor) -> Model:
    torch.manual_seed(0)
    model = Model(TransformConfig(num_filters=16, num_latents=LATENTS), QualityRange(4, 4))
    initialize_from_klt(model, x, lmbda=0.013)
    return model


@pytest.fixture(scope="module")
def wide(narrow: Model, x: torch.Tensor) -> tuple[AnalysisTransform, SynthesisTransform]:
    return widened(narrow.analysis, narrow.synthesis, [x[:6], x[6:]], num_latents=MORE, step=STEP)


def error(analysis: AnalysisTransform, synthesis: SynthesisTransform, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((x - synthesis(quantize(analysis(x)))).square().mean())


@torch.no_grad()
def test_first_latents_and_what_they_decode_to_stay(
    narrow: Model, wide: tuple[AnalysisTransform, SynthesisTransform], x: torch.Tensor
) -> None:
    analysis, synthesis = wide
    y = analysis(x)
    assert y.shape[1] == MORE
    torch.testing.assert_close(y[:, :LATENTS], narrow.analysis(x), rtol=1e-4, atol=1e-4)
    y[:, LATENTS:] = 0
    torch.testing.assert_close(synthesis(y), narrow.synthesis(y[:, :LATENTS]), rtol=1e-4, atol=1e-5)


def test_further_latents_code_what_was_missed(
    narrow: Model, wide: tuple[AnalysisTransform, SynthesisTransform], x: torch.Tensor
) -> None:
    others = random_fields(4, 128, seed=5)
    assert error(*wide, others) < 0.85 * error(narrow.analysis, narrow.synthesis, others)


def test_all_parameters_can_be_fitted(wide: tuple[AnalysisTransform, SynthesisTransform]) -> None:
    assert all(parameter.requires_grad for transform in wide for parameter in transform.parameters())


def test_latents_behind_a_gdn_are_refused(x: torch.Tensor) -> None:
    config = TransformConfig(num_filters=8, latent_gdn=True)
    with pytest.raises(ValueError, match="without latent_gdn"):
        widened(AnalysisTransform(config), SynthesisTransform(config), [x], num_latents=12, step=STEP)
