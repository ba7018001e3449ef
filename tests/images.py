"""Images for tests: random fields with the spectrum of photographs."""

import numpy as np
import torch


def random_fields(count: int, size: int, *, seed: int) -> torch.Tensor:
    """Return (count, 3, size, size) images in [0, 1] whose amplitude falls with frequency, channels correlated."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    amplitude = 1 / np.maximum(frequency, 1 / size)
    fields = np.fft.ifft2(amplitude * np.fft.fft2(rng.standard_normal((count, 4, size, size)))).real
    fields /= np.maximum(fields.std((2, 3), keepdims=True), 1e-9)
    colour = fields[:, :1] + 0.3 * fields[:, 1:]
    return torch.from_numpy(np.clip(0.5 + 0.15 * colour, 0, 1)).float()
