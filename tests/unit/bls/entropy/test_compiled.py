import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from bls.entropy.adaptive import coder as adaptive
from bls.entropy.compiled import hash_of_sources
from bls.entropy.mixed import coder as mixed


@pytest.mark.parametrize("coder", [adaptive, mixed])
def test_the_hash_of_what_is_compiled_in_is_current(coder: ModuleType) -> None:
    """Whoever changes one of these files writes the new hash into the coder's file, which renews numba's cache."""
    assert hash_of_sources(coder.COMPILED_IN) == coder.COMPILED_IN_SHA256
    assert coder.IS_CACHED


@pytest.mark.parametrize("coder", [adaptive, mixed])
def test_all_that_is_compiled_in_is_named(coder: ModuleType) -> None:
    """What a coder and the modules of its list import of this package stands in it, but for what is never compiled."""
    named = {"bls.entropy." + name.removesuffix(".py").replace("/", ".") for name in coder.COMPILED_IN}
    imported = {name for module in {coder.__name__, *named} for name in imports_of(import_module(module))}
    left = {name for name in imported - named if name.startswith("bls.entropy.")}
    assert left == {"bls.entropy.compiled", "bls.entropy.arrays"}


def imports_of(module: ModuleType) -> Iterator[str]:
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
