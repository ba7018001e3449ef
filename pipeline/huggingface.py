"""What Hugging Face `datasets` writes about columns beside their Arrow types: that one holds images, names of labels.

It is JSON in the metadata of a schema, under `huggingface`. On its way through a compressed dataset each column carries
its own part, under the same name.
"""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

_KEY = b"huggingface"
IMAGE = {"_type": "Image"}


def with_features(type_: pa.StructType, schema: pa.Schema) -> pa.StructType:
    """Give the members of a struct what the schema says of its columns of the same names."""
    features = _features(schema)
    return pa.struct(
        [
            field.with_metadata({**(field.metadata or {}), _KEY: json.dumps(features[field.name])})
            if field.name in features
            else field
            for field in type_
        ]
    )


def schema_metadata(schema: pa.Schema, **features: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return the metadata of a schema for `datasets`: what its columns carry, and `features` of others."""
    carried = {field.name: json.loads(field.metadata[_KEY]) for field in schema if _KEY in (field.metadata or {})}
    return {_KEY: json.dumps({"info": {"features": {**carried, **features}}}).encode()}


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """Return what is known of columns; nothing where the metadata is not what `datasets` writes."""
    try:
        features = json.loads((schema.metadata or {})[_KEY])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}
