"""The analysis and synthesis transforms, and what surrounds them: quantisation, tiles, precision."""

from bls.transforms.networks import DOWNSAMPLING, AnalysisTransform, SynthesisTransform, TransformConfig

__all__ = ["DOWNSAMPLING", "AnalysisTransform", "SynthesisTransform", "TransformConfig"]
