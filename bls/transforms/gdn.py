"""Generalised divisive normalisation, the transforms' nonlinearity (Ballé, Laparra, Simoncelli, ICLR 2017, section 3).

Letters in shapes: b batch, c channels, h and w rows and columns of latents.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

ROOT_FLOOR = 2.0**-5
"""Lower bound of beta' and gamma': keeps the gradient of their squares away from zero (the paper's appendix)."""


class GDN(nn.Module):
    """Divide each channel by a pooled measure of the activity of all.

        u_i = w_i / sqrt(beta_i + sum_j gamma_ij w_j^2)

    With `inverse`, multiply instead: the synthesis transform's IGDN, with parameters of its own. Stored are the roots
    `beta' = sqrt(beta + 2^-10)` and `gamma' = sqrt(gamma + 2^-10)`; `project` keeps them legal after an optimiser step.
    """

    def __init__(self, channels: int, *, inverse: bool = False, beta: float = 1.0, gamma: float = 0.02) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta_root = nn.Parameter(torch.empty(channels))
        self.gamma_root = nn.Parameter(torch.empty(channels, channels))
        self.set_(torch.full((channels,), beta), gamma * torch.eye(channels))

    @property
    def beta(self) -> Float[Tensor, " c"]:
        """The equation's beta."""
        return self.beta_root.square() - ROOT_FLOOR**2

    @property
    def gamma(self) -> Float[Tensor, "c c"]:
        """The equation's gamma; row i pools for channel i."""
        return self.gamma_root.square() - ROOT_FLOOR**2

    @torch.no_grad()
    def set_(self, beta: Float[Tensor, " c"], gamma: Float[Tensor, "c c"]) -> None:
        """Set the parameters from the equation's own beta and gamma (both at least 0)."""
        self.beta_root.copy_((beta + ROOT_FLOOR**2).sqrt())
        self.gamma_root.copy_((gamma + ROOT_FLOOR**2).sqrt())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise (or, for IGDN, denormalise) every position on its own."""
        energy = nn.functional.conv2d(x.square(), self.gamma[:, :, None, None], self.beta)
        # A channel may lose all its pooling weight (beta = gamma = 0 is legal): keep the division finite.
        return x * energy.clamp_min(0).sqrt() if self.inverse else x * energy.clamp_min(1e-9).rsqrt()

    @torch.no_grad()
    def project(self, *, symmetric: bool) -> None:
        """Project the parameters onto the paper's constraints: roots above their floor, gamma' symmetric on request."""
        self.beta_root.clamp_(min=ROOT_FLOOR)
        self.gamma_root.clamp_(min=ROOT_FLOOR)
        if symmetric:
            self.gamma_root.copy_((self.gamma_root + self.gamma_root.T) / 2)
