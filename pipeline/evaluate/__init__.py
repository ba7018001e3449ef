"""Evaluate: rate and distortion beside other codecs, and the check of the relaxation."""
