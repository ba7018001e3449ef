"""What is new in the input of a compress job that appends: planned, and told."""

from collections.abc import Sequence
from typing import Any

from pipeline.console.printing import say
from pipeline.ledger.append import Compared, append_plan
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output
from pipeline.sources.reference import Source


def plan_new(output: Output, source: Source, **options: Any) -> Manifest:
    """Plan what is new in a source, and tell what it is; options and errors are those of `append_plan`."""
    manifest, compared = append_plan(output, source, **options)
    tell(compared, source)
    return manifest


def tell(compared: Compared, source: Source) -> None:
    """Tell how an input compares with what the output knows."""
    new, known = compared.num_new or "none", compared.num_known
    say(f"images of {source} that are new: {new}" + (f"; {known} are known" if known else ""))
    if compared.num_vanished:
        gone = _named(compared.num_vanished, compared.vanished)
        say(f"known images that are not in the input any more, and stay in the output as they are: {gone}")
    if compared.num_moved:
        moved = _named(compared.num_moved, compared.moved)
        say(f"known images whose place in their tar or Parquet file changed, and are not read again: {moved}")


def _named(num_images: int, keys: Sequence[str]) -> str:
    rest = "" if len(keys) == num_images else " and others"
    return f"{num_images} ({', '.join(keys)}{rest})"
