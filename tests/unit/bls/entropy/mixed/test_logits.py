from decimal import Decimal, localcontext

import numpy as np

from bls.entropy.mixed.logits import LOGIT_UNITS, MAX_LOGIT, NUM_RATES, RATES, SQUASH, STRETCH, STRETCH_BITS


def test_squash_is_the_logistic_function_rounded() -> None:
    with localcontext(prec=40):
        for logit in range(-MAX_LOGIT, MAX_LOGIT + 1, 7):
            exact = 65536 / (1 + (Decimal(-logit) / LOGIT_UNITS).exp())
            assert abs(int(SQUASH[logit + MAX_LOGIT]) - exact) <= Decimal("0.5001")


def test_squash_rises_from_1_to_65535_and_is_symmetric() -> None:
    assert SQUASH[0] == 1 and SQUASH[-1] == 65535 and SQUASH[MAX_LOGIT] == 32768
    assert (np.diff(SQUASH) >= 0).all()
    assert np.array_equal(SQUASH + SQUASH[::-1], np.full_like(SQUASH, 65536))


def test_stretch_is_the_smallest_logit_that_reaches_the_probability() -> None:
    assert len(STRETCH) == 1 << STRETCH_BITS
    probability = 16 * np.arange(len(STRETCH)) + 8
    assert (SQUASH[STRETCH + MAX_LOGIT] >= probability).all()
    assert (SQUASH[STRETCH + MAX_LOGIT - 1] < probability).all()


def test_rates_fall_from_two_thirds_and_never_pass_the_answer() -> None:
    assert len(RATES) == NUM_RATES
    assert RATES[0] == 43690 and RATES[-1] == 255
    assert (np.diff(RATES.astype(int)) < 0).all()
