"""The entropy coders: symbols to bytes and back, integers alone."""
