"""Random-search ranges as people write them."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbed_sage.core.hparams import Choice, Power, Uniform

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("search", "text"),
    [
        (Power(10, -7, -4), "10^U(-7, -4)"),
        (Power(2, 3, 5.5, integer=True), "2^U(3, 5.5), whole"),
        (Power(1e-3, -2, 2), "0.001^U(-2, 2)"),
        (Uniform(0, 1), "U(0, 1)"),
        (Uniform(0, 5000, integer=True), "U(0, 5000), whole"),
        (Choice(0.0, 0.1, 0.5), "one of 0, 0.1, 0.5"),
        (Choice(1e-4, 1 / 3), "one of 0.0001, 0.3333333333333333"),
        (Choice(True, None, "a, b", (1, 2)), "one of true, null, 'a, b', (1, 2)"),
    ],
)
def test_text(search, text):
    assert str(search) == text


@given(finite, finite)
def test_no_digit_is_lost(low, high):
    found = re.fullmatch(r"U\((.*), (.*)\)", str(Uniform(low, high)))
    assert [float(text) for text in found.groups()] == [low, high]
    assert math.copysign(1, float(found[1])) == math.copysign(1, low)
