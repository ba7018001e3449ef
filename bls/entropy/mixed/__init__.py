"""The mixed coder: the adaptive coder's decisions, each predicted by six models whose predictions are mixed."""
