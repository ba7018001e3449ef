"""What is written and what counts: schema, plan, attempts, commit markers."""

from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Manifest, Output
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary

__all__ = ["Manifest", "Marker", "Output", "Shard", "Summary"]
