"""Report: a compressed dataset as one HTML page."""
