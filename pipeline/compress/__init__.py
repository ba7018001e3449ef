"""Compress: a shard of images in, bitstreams and metrics out."""
