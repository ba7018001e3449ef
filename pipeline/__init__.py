"""Datasets: rows in, rows out. Storage, images, shards, and Ray around the codec."""
