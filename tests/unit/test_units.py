"""Quantities: exact at the door, exact when written back, refused when in doubt."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import UnitError
from simulator.units import (
    check_range,
    dense,
    dimensions,
    example,
    human,
    parse,
    render,
)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("900 GB/s", "bandwidth", 9e11),
        ("400 Gb/s", "bandwidth", 5e10),
        ("400 Gbps", "bandwidth", 5e10),
        ("400 GB/s", "bandwidth", 4e11),
        ("1 GiB/s", "bandwidth", 2.0**30),
        ("80 GB", "bytes", 8e10),
        ("80 GiB", "bytes", 80 * 2.0**30),
        ("80GB", "bytes", 8e10),
        (" 1.5e3  MB ", "bytes", 1.5e9),
        ("989.4 TFLOP/s", "compute", 989.4e12),
        ("5 TFLOPS", "compute", 5e12),
        ("2 us", "time", 2e-6),
        ("2 µs", "time", 2e-6),
        ("1 d", "time", 86400.0),
        ("200 kIOPS", "rate", 2e5),
        ("700 W", "power", 700.0),
        ("1.83 GHz", "frequency", 1.83e9),
        ("3600 USD/h", "money_rate", 1.0),
    ],
)
def test_parse_is_exact(text, dimension, value):
    assert parse(text, dimension) == value


def test_parse_rounds_once():
    """0.1 TB/s is the float nearest to 10**11, not 0.1 (already rounded) times 10**12."""
    assert parse("3.35 TB/s", "bandwidth") == float(Fraction("3.35") * 10**12)
    assert parse("0.3 us", "time") == float(Fraction(3, 10**7))


@pytest.mark.parametrize(
    ("text", "dimension", "words"),
    [
        ("900", "bandwidth", "no unit"),
        (900, "bandwidth", "no unit"),
        (None, "bytes", "no unit"),
        (True, "bytes", "no unit"),
        ("900 Gb", "bandwidth", "measures bytes"),
        ("900 GB/s", "bytes", "measures bandwidth"),
        ("5 parsec", "time", 'unknown unit "parsec"'),
        ("5 gb", "bytes", "unknown unit"),
        ("5 TFLOPS (sparse)", "compute", "dense"),
        ("", "time", "not a quantity"),
        ("fast", "bandwidth", "not a quantity"),
        ("0x10 GB", "bytes", "unknown unit"),
        ("1_000 GB", "bytes", "unknown unit"),
        ("1 " + "x" * 200, "bytes", "not a quantity"),
        ("0 GB/s", "bandwidth", "out of range"),
        ("-1 GB/s", "bandwidth", "out of range"),
        ("-0.0 GB/s", "bandwidth", "out of range"),
        ("5e-324 GB/s", "bandwidth", "out of range"),
        ("1e-300 GB/s", "bandwidth", "out of range"),
        ("1e999 GB/s", "bandwidth", "out of range"),
        ("1e9999 GB", "bytes", "out of range"),
        ("1e-9999 GB", "bytes", "out of range"),
        ("1e18 s", "time", "out of range"),
        ("0 s", "time", "out of range"),
    ],
)
def test_parse_refuses(text, dimension, words):
    with pytest.raises(UnitError, match=words.replace("(", r"\(")):
        parse(text, dimension)


def test_zero_only_where_it_has_a_meaning():
    assert parse("0 us", "time", allow_zero=True) == 0.0
    assert math.copysign(1.0, parse("-0.0 us", "time", allow_zero=True)) == 1.0
    with pytest.raises(UnitError, match=r"0 or 1e-12 to 8\.64e"):
        parse("101 d", "time", allow_zero=True)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_not_finite(value):
    with pytest.raises(UnitError, match="finite"):
        check_range(value, "time")


@pytest.mark.parametrize("dimension", dimensions())
def test_examples_are_well_formed(dimension):
    for text in example(dimension).split(" or "):
        assert parse(text.strip('"'), dimension) > 0


_RANGES = {
    "bytes": (1.0, 1e21),
    "bandwidth": (1.0, 1e18),
    "compute": (1.0, 1e21),
    "time": (1e-12, 8.64e6),
    "duration": (1e-3, 1e12),
    "rate": (1e-9, 1e15),
    "power": (1e-6, 1e12),
    "frequency": (1e-6, 1e15),
    "money_rate": (1e-12, 1e9),
}


@given(st.data(), st.sampled_from(sorted(_RANGES)))
def test_render_reads_back_as_the_same_float(data, dimension):
    low, high = _RANGES[dimension]
    value = data.draw(st.floats(low, high))
    assert parse(render(value, dimension), dimension) == value


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (3.35e12, "bandwidth", "3.35 TB/s"),
        (4e11, "bandwidth", "400 GB/s"),
        (80 * 2.0**30, "bytes", "80 GiB"),
        (8e10, "bytes", "80 GB"),
        (700.0, "power", "700 W"),
        (0.0, "time", "0 s"),
        (9.9e-7, "time", "990 ns"),
    ],
)
def test_render_writes_what_a_person_would(value, dimension, text):
    assert render(value, dimension) == text


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (3.35e12, "bandwidth", "3.35 TB/s"),
        (80 * 2.0**30, "bytes", "80 GiB"),
        (1234.5, "time", "20.6 min"),
        (1.291, "time", "1.29 s"),
        (1234e12, "compute", "1.23 PFLOP/s"),
        (0.0, "time", "0 s"),
    ],
)
def test_human(value, dimension, text):
    assert human(value, dimension) == text


def test_dense_halves_what_is_given_with_sparsity():
    assert dense("5 TFLOPS (sparse)") == "2.5 TFLOP/s"
    assert dense("3.958 PFLOP/s with sparsity") == "1.979 PFLOP/s"
    assert dense("989 TFLOP/s") is None
    with pytest.raises(UnitError, match="unknown unit"):
        dense("5 parsec (sparse)")
