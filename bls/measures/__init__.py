"""What is measured of an image and its reconstruction."""
