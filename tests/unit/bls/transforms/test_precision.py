from collections.abc import Mapping

import pytest
import torch

from bls.transforms import precision
from bls.transforms.precision import MAX_BFLOAT16_LMBDA, Precision, has_bfloat16, takes_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize("has_it", [True, False])
def test_a_cpu_is_asked_for_bfloat16_by_the_way_that_pytorch_has(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def get_capabilities() -> Mapping[str, bool]:
        return {"avx2": True, "avx512_bf16": has_it}

    monkeypatch.setattr(torch.cpu, "get_capabilities", get_capabilities, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not has_it)
    assert has_bfloat16(CPU) is has_it
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in releases before 2.13
    assert has_bfloat16(CPU) is not has_it
    assert not has_bfloat16(torch.device("meta"))


@pytest.mark.parametrize(
    ("wanted", "lmbda", "has_it", "expected"),
    [
        ("auto", MAX_BFLOAT16_LMBDA, True, True),
        ("auto", MAX_BFLOAT16_LMBDA, False, False),
        ("auto", 1.1 * MAX_BFLOAT16_LMBDA, True, False),
        ("float32", 0.001, True, False),
        ("bfloat16", 1.0, False, True),
    ],
)
def test_auto_takes_bfloat16_where_it_is_fast_and_loses_nothing(
    wanted: Precision, lmbda: float, has_it: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: has_it)
    assert takes_bfloat16(wanted, CPU, lmbda=lmbda) is expected
