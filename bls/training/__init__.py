"""Fitting: the relaxed loss, the steps, and what is stored at the end. The codec works without it."""

from bls.training.finish import make_fitted_network
from bls.training.model import Model
from bls.training.trainer import Trainer, TrainingConfig

__all__ = ["Model", "Trainer", "TrainingConfig", "make_fitted_network"]
