"""What the workers of all jobs share: codec, bundle, overlapping stages."""
