"""GDN against the equation of the paper, and its constraints."""

import torch

from bls.transforms.gdn import GDN, ROOT_FLOOR


def _random_gdn(*, inverse: bool) -> GDN:
    gdn = GDN(4, inverse=inverse)
    gdn.set_(torch.rand(4) + 0.1, torch.rand(4, 4))
    return gdn


def _energy(gdn: GDN, x: torch.Tensor) -> torch.Tensor:
    """The equation, written out for each channel."""
    channels = [gdn.beta[i] + sum(gdn.gamma[i, j] * x[:, j] ** 2 for j in range(4)) for i in range(4)]
    return torch.stack(channels, 1).sqrt()


def test_gdn_divides_by_the_pooled_activity() -> None:
    gdn, x = _random_gdn(inverse=False), torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(gdn(x), x / _energy(gdn, x))


def test_igdn_multiplies_by_the_pooled_activity() -> None:
    gdn, x = _random_gdn(inverse=True), torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(gdn(x), x * _energy(gdn, x))


def test_parameters_survive_the_roots() -> None:
    gdn, beta, gamma = GDN(3), torch.tensor([0.0, 1e-4, 7.0]), torch.eye(3)
    gdn.set_(beta, gamma)
    torch.testing.assert_close(gdn.beta, beta, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gdn.gamma, gamma, atol=1e-6, rtol=1e-5)


def test_projection_restores_the_constraints() -> None:
    gdn = GDN(3)
    with torch.no_grad():
        gdn.beta_root.copy_(torch.tensor([-1.0, 0.0, 2.0]))
        gdn.gamma_root.copy_(torch.tensor([[0.5, 1.0, -3.0], [0.2, 0.0, 0.0], [0.0, 0.0, 0.1]]))
    gdn.project(symmetric=True)
    assert gdn.beta_root.min() >= ROOT_FLOOR and gdn.gamma_root.min() >= ROOT_FLOOR
    torch.testing.assert_close(gdn.gamma_root, gdn.gamma_root.T)
    assert gdn.beta.min() >= 0 and gdn.gamma.min() >= 0


def test_projection_keeps_asymmetric_gamma_on_request() -> None:
    gdn = GDN(2)
    with torch.no_grad():
        gdn.gamma_root.copy_(torch.tensor([[1.0, 0.5], [0.25, 1.0]]))
    gdn.project(symmetric=False)
    assert gdn.gamma_root[0, 1] == 0.5 and gdn.gamma_root[1, 0] == 0.25


def test_a_channel_without_any_pool_stays_finite() -> None:
    gdn = GDN(1)
    gdn.set_(torch.zeros(1), torch.zeros(1, 1))
    assert torch.isfinite(gdn(torch.ones(1, 1, 1, 1))).all()
