import pytest

from domainbed_sage.core.hparams import Choice, Power, Uniform
from domainbed_sage.core.ranges import read_range, read_ranges


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10^U(-4, -2.5)", Power(10, -4, -2.5)),
        ("2^U(3,5), whole", Power(2, 3, 5, integer=True)),
        ("U(0, .5)", Uniform(0, 0.5)),
        ("U(5e2, 1e3), whole", Uniform(500, 1000, integer=True)),
        ("1e-3^U(-2, 2)", Power(1e-3, -2, 2)),
        ("U(1, 1)", Uniform(1, 1)),
        ([0.1, 0.5], Choice(0.1, 0.5)),
        ([True], Choice(True)),
    ],
)
def test_ranges_are_read(text, meant):
    assert read_range(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        [],
        0.1,
        None,
        "",
        "U(2, 1)",
        "10^U(-4)",
        "0^U(1, 2)",
        "-2^U(1, 2)",
        "U(1, 2), half",
        "x U(1, 2)",
        "U(nan, 1)",
        "2^U(1, 2) ",
    ],
)
def test_other_texts_are_no_ranges(text):
    assert read_range(text) is None


def test_all_wrong_ranges_are_named_with_what_is_allowed():
    with pytest.raises(ValueError, match=r"10\^U\(-4, -2\).*Found lr: 'fast', rho: \[\]$"):
        read_ranges({"lr": "fast", "gamma": "U(0, 1)", "rho": []})
