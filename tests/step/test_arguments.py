"""What arguments are read as, and what is said of others."""

import random
from fractions import Fraction

import numpy as np
import pytest

from step.arguments import check_choice, check_flag, check_whole, exact_interval, exact_rate, exact_seconds
from step.errors import ArgumentError

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("trt", "`backend` is 'trt'; give auto, tensorrt or torch; did you mean 'tensorrt'?"),
        ("TORCH", "`backend` is 'TORCH'; give auto, tensorrt or torch; did you mean 'torch'?"),
        ("gpu", "`backend` is 'gpu'; give auto, tensorrt or torch"),
        (None, "`backend` is None; give auto, tensorrt or torch"),
        (["torch"], "`backend` is ['torch']; give auto, tensorrt or torch"),
    ],
)
def test_choices_are_listed(value, said):
    with pytest.raises(ArgumentError) as error:
        check_choice("backend", value, ("auto", "tensorrt", "torch"))
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None, NAN, np.float32(2)])
def test_no_whole_number(value):
    with pytest.raises(ArgumentError, match=r"^`n` is .*; it must be a whole number of at least 1$"):
        check_whole("n", value, least=1)


def test_whole_numbers_have_bounds():
    with pytest.raises(ArgumentError, match="^`n` is 9; it must be a whole number from 0 to 8$"):
        check_whole("n", 9, least=0, most=8)


def test_whole_numbers():
    for value in (1, np.int64(7), 10**400):
        check_whole("n", value, least=1)


def test_flags():
    check_flag("on", False)
    with pytest.raises(ArgumentError, match="`on` is 'no'; give True or False"):
        check_flag("on", "no")


@pytest.mark.parametrize("value", [NAN, INFINITE, "1", None, True, 1j])
def test_no_time(value):
    with pytest.raises(ArgumentError, match=r"^`t` is .*; it must be a number of seconds$"):
        exact_seconds("t", value)


@pytest.mark.parametrize("value", [0, -1.0, NAN, INFINITE, "1/3", None, False])
def test_no_interval_and_no_rate(value):
    with pytest.raises(ArgumentError, match=r"^`t` is .*; it must be above 0 seconds$"):
        exact_interval("t", value)
    with pytest.raises(ArgumentError, match=r"^`t` is .*; it must be above 0$"):
        exact_rate("t", value)


def test_floats_are_what_was_meant():
    assert exact_interval("t", 1 / 3) == Fraction(1, 3)
    assert exact_interval("t", np.float32(0.5)) == Fraction(1, 2)
    assert exact_interval("t", 1e-9) == Fraction(1e-9)  # too small to be simple, and above 0 all the same
    for written, meant in ((29.97, 30), (23.98, 24), (23.976, 24), (59.94, 60), (30000 / 1001, 30)):
        assert exact_rate("t", written) == Fraction(meant * 1000, 1001)
    assert exact_rate("t", 12.5) == Fraction(25, 2)
    assert exact_rate("t", np.int64(25)) == 25
    assert exact_seconds("t", Fraction(1, 3 * 10**9)) == Fraction(1, 3 * 10**9)  # what is exact stays as it is


@pytest.mark.parametrize("base", [24, 25, 12800, 30000, 90000, 1000])
def test_a_days_floats_are_exact(base):
    """Times of every usual time base come back from their floats."""
    chooser = random.Random(base)
    for _ in range(300):
        time_s = Fraction(chooser.randrange(86_400 * base), base)
        assert exact_seconds("t", float(time_s)) == time_s
