"""Exit reasons: which are quiet, and reasons as plain data and in words."""

from __future__ import annotations

import pytest

from erps_gevent.otp.reasons import Shutdown, brief, cause_of, from_plain, is_quiet, kind_and_message, to_plain
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
