"""Exit reasons: which are quiet, and reasons as plain data and in words."""

from __future__ import annotations

import pytest

from erps_gevent.otp.reasons import (
    FAILED_TO_START_CHILD,
    Shutdown,
    brief,
    cause_of,
    from_plain,
    is_quiet,
    is_same,
    kind_and_message,
    text_of,
    to_plain,
)
from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, TIMEOUT

WORDS = [NORMAL, SHUTDOWN, KILL, KILLED, NOPROC, TIMEOUT]


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Shutdown("disconnected"), Shutdown(None)])
def test_quiet_reasons(reason):
    assert is_quiet(reason)


@pytest.mark.parametrize("reason", [KILL, KILLED, NOPROC, "normal", None, ValueError()])
def test_all_other_reasons_are_reported(reason):
    assert not is_quiet(reason)


@pytest.mark.parametrize("reason", [*WORDS, Shutdown("disconnected"), Shutdown([1]), "why", None, ["shutdown", 1], 7])
def test_a_reason_survives_as_plain_data(reason):
    plain = to_plain(reason)
    assert type(plain) is list
    assert from_plain(plain) == reason


def test_an_exception_is_not_sent_as_a_reason():
    assert to_plain(ValueError("no")) is None


@pytest.mark.parametrize("garbage", [None, "normal", [], ["no such word"], [1], [1, 2, 3]])
def test_what_is_no_reason_is_none(garbage):
    assert from_plain(garbage) is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (KeyError("a"), ("KeyError", "'a'")),
        (KILLED, ("killed", "")),
        (Shutdown("drained"), ("shutdown", "drained")),
        (("any", 1), ("exit", "('any', 1)")),
    ],
)
def test_a_reason_has_a_name_and_a_sentence(reason, expected):
    assert kind_and_message(reason) == expected


def test_what_goes_into_a_log_is_cut():
    assert brief(("small", 1)) == "('small', 1)"
    assert len(brief(b"x" * 1_000_000)) < 1000
    assert len(brief(dict.fromkeys(range(1000), "x" * 1000))) < 10_000


def test_the_cause_of_a_reason_is_the_exception_in_it():
    error = ValueError("deep")
    inner = Shutdown(("failed_to_start_child", "leaf", error))
    assert cause_of(error) is error
    assert cause_of(Shutdown(("failed_to_start_child", "tree", inner))) is error
    for reason in (NORMAL, "crash", Shutdown("x"), Shutdown(("failed_to_start_child", "leaf", "crash"))):
        assert cause_of(reason) is None


# What cannot be printed or compared.


class Unprintable(Exception):
    def __str__(self):
        return f"code {None:d}"  # as in a program with a slip in it

    __repr__ = __str__

    def __eq__(self, other):
        raise TypeError("ambiguous")

    __hash__ = Exception.__hash__


UNPRINTABLE = Unprintable()


def test_what_cannot_be_printed_is_named_by_its_class():
    text = "<Unprintable, which cannot be printed: TypeError>"
    assert text_of(UNPRINTABLE) == text
    assert "Unprintable" in brief(UNPRINTABLE)
    assert kind_and_message(UNPRINTABLE) == ("Unprintable", text)
    assert kind_and_message(Shutdown(UNPRINTABLE)) == ("shutdown", text)
    assert kind_and_message((UNPRINTABLE,)) == ("exit", "<tuple, which cannot be printed: TypeError>")


def test_what_cannot_be_compared_is_itself_only():
    assert is_same(UNPRINTABLE, UNPRINTABLE)
    assert not is_same(UNPRINTABLE, Unprintable())
    assert is_same(("a", 1), ("a", 1))


def test_the_cause_is_found_in_a_reason_that_cannot_be_compared():
    assert cause_of(Shutdown((UNPRINTABLE, 1, 2))) is None
    assert cause_of(Shutdown((FAILED_TO_START_CHILD, "id", UNPRINTABLE))) is UNPRINTABLE
