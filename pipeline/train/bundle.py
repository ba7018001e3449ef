"""The bundle that a train job writes: networks are added one by one, and those that are there are kept.

training.parquet and training.png, beside the networks, have the curves of all of them.
"""

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bls.bundle import MANIFEST, load_bundle, network_file, read_bundle, save_bundle
from bls.ladder import QualityRange
from bls.network import FittedNetwork
from pipeline.ledger.written import check_replaceable, write_results
from pipeline.storage.folder import Folder
from pipeline.train.curve_plot import plot_training_curve
from pipeline.train.fitted import read_curve, read_fitted

CURVES, CURVES_PLOT = "training.parquet", "training.png"


def check_writable(output: Folder, ranges: Iterable[QualityRange]) -> None:
    """Refuse to replace files that no train job wrote.

    Raises:
        ValueError: names a file that is in the way.
    """
    names = [MANIFEST, CURVES, CURVES_PLOT, *map(network_file, ranges)]
    check_replaceable(output, names, ours=_names_in_bundle(output))


def check_nothing_is_lost(output: Folder, storage: Folder, ranges: Sequence[QualityRange]) -> None:
    """Refuse to replace networks of a bundle, whose bitstreams nothing else decodes, by others than this storage's.

    Raises:
        ValueError: names the network.
    """
    if not output.holds(MANIFEST):
        return
    for network in read_bundle(output.read, str(output)).networks:
        if not any(network.qualities.overlaps(each) for each in ranges):
            continue
        fitted = read_fitted(storage, network.qualities)
        if fitted is None or fitted.fingerprint != network.fingerprint:
            raise ValueError(
                f"--output {output} already has a network of quality {network.qualities}, fingerprint "
                f"{network.fingerprint.hex()}, that --storage {storage} does not hold: give another --output or "
                "--qualities, or --overwrite to replace it; what it compressed can then no longer be decoded"
            )


def add_to_bundle(output: Folder, fitted: FittedNetwork, storage: Folder) -> None:
    """Add a network to the bundle, and its curve to the table and the plot beside it; the manifest is written last."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in _names_in_bundle(output):
            if name != CURVES_PLOT:  # it is drawn anew
                (folder / name).write_bytes(output.read(name))
        present = load_bundle(temporary).networks if (folder / MANIFEST).exists() else ()
        kept = [each for each in present if not each.qualities.overlaps(fitted.qualities)]
        save_bundle(folder, [*kept, fitted])
        table = _curves(folder, kept, read_curve(storage, fitted.qualities))
        pq.write_table(table, folder / CURVES)
        (folder / CURVES_PLOT).write_bytes(plot_training_curve(table))
        paths = sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST)
        files = {path.name: path.read_bytes() for path in paths}
        write_results(output, files, ours=_names_in_bundle(output))


def _curves(folder: Path, kept: Sequence[FittedNetwork], curve: pa.Table) -> pa.Table:
    """Return a curve with those of the networks that are kept."""
    curves = [curve]
    if (folder / CURVES).exists():
        others = pq.read_table(folder / CURVES)
        curves.append(others.filter(pc.field("qualities").isin([str(each.qualities) for each in kept])))
    return pa.concat_tables(curves).sort_by([("qualities", "ascending"), ("step", "ascending")])


def _names_in_bundle(output: Folder) -> list[str]:
    """Return the files of a bundle that is there; other files in the folder are left alone."""
    if not output.holds(MANIFEST):
        return []
    files = [entry["file"] for entry in json.loads(output.read(MANIFEST))["networks"]]
    return [MANIFEST, *files, *(name for name in (CURVES, CURVES_PLOT) if output.holds(name))]
