"""Train: images to fitted networks, on Ray Train."""

import pipeline.cluster  # noqa: F401  (its settings of Ray come before Ray)
