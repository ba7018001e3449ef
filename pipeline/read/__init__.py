"""Read a compressed dataset: rows, images, queries, training loops."""
