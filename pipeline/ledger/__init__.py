"""What is written and what counts: schema, plan, attempts, commit markers."""

from pipeline.ledger.manifest import Manifest
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary

__all__ = ["Manifest", "Marker", "Output", "Shard", "Summary"]
