import ast
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
    """What a coder imports of this package stands in its list, but for what never reaches the machine code."""
    tree = ast.parse(Path(str(coder.__file__)).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    named = {"bls.entropy." + name.removesuffix(".py").replace("/", ".") for name in coder.COMPILED_IN}
    left = {module for module in imported - named if str(module).startswith("bls.entropy.")}
    assert left == {"bls.entropy.compiled"}
