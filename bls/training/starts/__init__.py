"""Where a fit starts: the Karhunen-Loève transform of the images, or a network of fewer latents."""

from bls.training.starts.klt import initialize_from_klt
from bls.training.starts.widening import widened

__all__ = ["initialize_from_klt", "widened"]
