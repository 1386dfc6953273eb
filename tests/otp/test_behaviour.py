"""What a class statement and a start call may say."""

from __future__ import annotations

import pytest

from erps_gevent.errors import ConfigError
from erps_gevent.otp.behaviour import Option, bind, checked, count, did_you_mean, flag, number, one_of, split

KNOWN = {"timeout": Option(5.0, number(0, none=True)), "safe": Option(True, flag)}
NAN = float("nan")
INF = float("inf")


@pytest.mark.parametrize("value", [0, 0.5, 7, 1e9])
def test_a_number_may_be_any_from_the_bound_up(value):
    assert number(0)("x", value) == value


@pytest.mark.parametrize("value", [-1, -0.1, True, "5", None, NAN, INF, [1]])
def test_a_bad_number_is_named_and_shown(value):
    with pytest.raises(ConfigError) as caught:
        number(0)("timeout", value)
    assert str(caught.value) == f"timeout is a number of at least 0, not {value!r}"


@pytest.mark.parametrize("value", [1e10, 2**63 - 1, 1e300, pytest.param(10**400, id="10**400")])
def test_a_number_that_no_timer_can_wait_is_refused(value):
    with pytest.raises(ConfigError, match=r"^timeout is at most 1e\+09, .*; None is for ever$"):
        number(0, none=True)("timeout", value)
    with pytest.raises(ConfigError, match="no timer can exceed"):
        number(0)("timeout", value)


def test_none_is_for_ever_where_it_may_be():
    assert number(0, none=True)("timeout", None) is None
    with pytest.raises(ConfigError, match="or None for ever"):
        number(0, none=True)("timeout", -1)


def test_a_count_is_whole():
    assert count(1)("n", 1) == 1
    for value in (0, 1.0, True, "1", None):
        with pytest.raises(ConfigError, match=r"n is a whole number of at least 1, not "):
            count(1)("n", value)


def test_a_flag_is_a_bool():
    assert flag("safe", False) is False
    with pytest.raises(ConfigError, match="safe is True or False, not 1"):
        flag("safe", 1)


def test_one_of_takes_its_words_only():
    choice = one_of("here", "thread")
    assert choice("hub", "here") == "here"
    for value in ("there", None, ["here"]):
        with pytest.raises(ConfigError, match="hub is one of 'here', 'thread', not "):
            choice("hub", value)


def test_given_options_are_checked():
    assert checked({"timeout": 2, "safe": False}, KNOWN, "class C") == {"timeout": 2, "safe": False}
    with pytest.raises(ConfigError, match="class C: safe is True or False"):
        checked({"safe": "yes"}, KNOWN, "class C")


def test_an_option_that_does_not_exist_brings_the_nearest_one():
    with pytest.raises(TypeError, match=r"class C has no option 'timeuot'; did you mean 'timeout'\?"):
        checked({"timeuot": 2}, KNOWN, "class C")


def test_option_names_are_reserved_and_the_rest_is_for_init():
    assert split({"timeout": 2, "start": 0}, KNOWN) == ({"timeout": 2}, {"start": 0})


class Shop:
    def init(self, stock, *, price=1):
        """What `bind` looks at."""


def test_arguments_that_fit_init_are_let_through():
    bind(Shop, (3,), {"price": 2}, KNOWN)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"Shop.init\(stock, price\): missing a required argument: 'stock'$"),
        ((1, 2), {}, r"too many positional arguments$"),
        ((1,), {"prise": 2}, r"got an unexpected keyword argument 'prise'; did you mean 'price'\?"),
        ((1,), {"timeuot": 2}, r"did you mean 'timeout'\?"),
        ((1,), {"zzz": 2}, r"got an unexpected keyword argument 'zzz'$"),
    ],
)
def test_arguments_that_do_not_fit_init_fail_at_once_with_the_nearest_name(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        bind(Shop, args, kwargs, KNOWN)


def test_nothing_near_is_not_guessed():
    assert did_you_mean("qqqq", KNOWN) == ""
