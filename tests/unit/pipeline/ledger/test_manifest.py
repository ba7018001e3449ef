import json
from dataclasses import replace

import pytest

from pipeline.ledger.manifest import Manifest, Plan


def test_sums_are_those_of_all_plans() -> None:
    manifest = Manifest(plans=(Plan("a", num_images=10, num_shards=4), Plan("b", num_images=3, num_shards=1)))
    assert (manifest.id, manifest.num_images, manifest.num_shards) == ("a", 13, 5)


def test_its_file_holds_the_first_plan() -> None:
    first = Plan("a", 10, 4, 3, "0", "struct<label: int16>", {".txt": 1})
    manifest = Manifest("compress", {"quality": 4}, ["--input", "/a"], plans=(first, Plan("b")))
    assert Manifest.from_json(json.dumps(manifest.to_json()).encode()) == replace(manifest, plans=(first,))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"name": "a web app"}',
        '{"job": 1, "settings": {}}',
        '{"job": "compress", "settings": 4}',
        '{"job": "compress", "settings": {}, "plan": {"num_images": "six"}}',
        '{"job": "compress", "settings": {}, "plan": {"colour": "red"}}',
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Manifest.from_json(text.encode())
