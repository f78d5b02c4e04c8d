"""The argument checks: each names the argument, what was expected and what came."""

import numpy as np
import pytest

from cs231n.arguments import check_count, check_keys, check_number


@pytest.mark.parametrize("count", [1, 5, np.int64(3), True])
def test_check_count_returns_a_plain_int(count):
    assert check_count("n", count, 1, 5) == count
    assert type(check_count("n", count, 1, 5)) is int


@pytest.mark.parametrize("count", [0, 6, 2.0, "3", None])
def test_check_count_names_the_argument_its_limits_and_what_came(count):
    with pytest.raises(ValueError, match=rf"^n: wanted a whole number from 1 to 5, got {count!r}$"):
        check_count("n", count, 1, 5)


def test_check_count_without_an_upper_limit():
    assert check_count("n", 10**20, 1) == 10**20
    with pytest.raises(ValueError, match=r"^n: wanted a whole number of at least 1, got 0$"):
        check_count("n", 0, 1)


@pytest.mark.parametrize("value", [0, 2, 0.5, np.float32(0.5), float("inf")])
def test_check_number_returns_a_plain_float(value):
    assert check_number("reg", value) == value
    assert type(check_number("reg", value)) is float


@pytest.mark.parametrize("value", [-1, float("nan"), "1", None, 1j])
def test_check_number_names_the_argument_and_what_came(value):
    with pytest.raises(ValueError, match=r"^reg: wanted a number of at least 0, got ") as caught:
        check_number("reg", value)
    assert str(caught.value).endswith(repr(value))


def test_check_keys_names_the_dict_the_unknown_key_and_the_known_ones():
    check_keys("pool_param", {"stride": 2}, ("pool_height", "stride"))
    with pytest.raises(ValueError, match="pool_param: wanted pool_height, stride, and nothing else; got 'strid'"):
        check_keys("pool_param", {"strid": 2}, ("pool_height", "stride"))
