"""Refinement of an image's latents by gradient steps while it is encoded: the levels of effort above 0."""
