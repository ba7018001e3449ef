"""Decompress: a shard of bitstreams in, images out."""
