"""A compressed dataset in training loops: orders of epochs, their middle, decoding on the training device."""
