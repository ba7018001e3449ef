"""The adaptive coder: binary decisions whose probabilities adapt as it goes."""
