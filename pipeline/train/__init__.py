"""Train: images to fitted networks, on Ray Train."""
