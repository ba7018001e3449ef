import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.huggingface import IMAGE, schema_metadata, with_features

FEATURES = {"image": IMAGE, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "mask": IMAGE}
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS = pa.struct([("label", pa.int64()), ("mask", PICTURE), ("text", pa.string())])


def schema_of(metadata: dict[str, str] | None) -> pa.Schema:
    return pa.schema([("image", PICTURE), *COLUMNS], metadata)


def test_columns_carry_their_features_through_a_file(tmp_path: Path) -> None:
    """From the schema of an input to members of a struct, and from there to the schema of an output."""
    said = json.dumps({"info": {"features": FEATURES}})
    carried = with_features(COLUMNS, schema_of({"huggingface": said}))
    assert carried == COLUMNS
    pq.write_table(pa.table({"carried": pa.array([None], carried)}), tmp_path / "x.parquet")
    stored = pq.read_schema(tmp_path / "x.parquet").field("carried").type
    metadata = schema_metadata(pa.schema(list(stored)), image=IMAGE)
    assert json.loads(metadata[b"huggingface"]) == {"info": {"features": FEATURES}}


@pytest.mark.parametrize("said", [None, "", "[]", '"text"', '{"info": null}', '{"info": {"features": ["label"]}}', "{"])
def test_other_metadata_is_passed_over(said: str | None) -> None:
    schema = schema_of(None if said is None else {"huggingface": said})
    assert not any(field.metadata for field in with_features(COLUMNS, schema))
