"""Committed shards of a compressed dataset -> what is wrong with them."""
