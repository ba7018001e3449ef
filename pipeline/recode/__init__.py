"""Recode: a shard of bitstreams -> the same symbols, coded by another entropy coder."""
