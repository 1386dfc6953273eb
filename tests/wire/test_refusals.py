"""An error of one end becomes the same error at the other, or the nearest that its caller can do something about."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erps_gevent import errors
from erps_gevent.errors import (
    BadPacket,
    BadReturn,
    CallExit,
    CallTimeout,
    ConfigError,
    Disconnected,
    EncodeError,
    ErpsError,
    ErrorReply,
    IdentifierMismatch,
    NoProc,
    Overloaded,
    PacketTooLarge,
    ProtocolError,
    ServerExit,
    SignatureMismatch,
    StartError,
    StartIgnored,
    UnsafeTerm,
    VersionMismatch,
)
from erps_gevent.wire.refusals import Code, Refusal, error_of, fits, refusal_of


def told(error: ErpsError) -> ErpsError:
    return error_of(refusal_of(error), "request")


def test_the_codes_are_those_of_the_document():
    assert {code.name: int(code) for code in Code} == {
        "REPLY": 1,
        "EXIT": 2,
        "BAD_RETURN": 3,
        "OVERLOADED": 4,
        "START": 5,
        "IGNORED": 6,
        "BAD_PACKET": 16,
        "TOO_LARGE": 17,
        "UNSAFE": 18,
        "IDENTIFIER": 19,
        "VERSION": 20,
        "SIGNATURE": 21,
        "PLAINTEXT": 22,
    }


def test_an_error_reply_is_the_same_at_the_other_end():
    error = told(ErrorReply("no_stock", "none is left", {"sku": 7}))
    assert type(error) is ErrorReply
    assert (error.kind, error.message, error.data) == ("no_stock", "none is left", {"sku": 7})
    assert str(error) == "no_stock: none is left"


def test_a_server_exit_has_its_reason_kind_and_message_and_the_request():
    error = told(ServerExit("ended", reason=["value", 7], kind="ValueError", message="no such sku"))
    assert type(error) is ServerExit
    assert (error.reason, error.kind, error.message) == (["value", 7], "ValueError", "no such sku")
    assert (error.request, error.sent) == ("request", True)
    assert str(error) == "the server ended before it answered: ValueError: no such sku"


def test_a_server_exit_without_a_message_is_a_short_sentence():
    assert str(told(ServerExit("ended", kind="normal"))) == "the server ended before it answered: normal"
    assert str(told(ServerExit("ended"))) == "the server ended before it answered"


@pytest.mark.parametrize("message", ["", "handle_call returned 3"])
def test_a_bad_return_stays_one(message):
    error = told(BadReturn("handle_call returned 3", message=message, kind="ignored"))
    assert type(error) is BadReturn
    assert (error.kind, error.message) == ("BadReturn", "handle_call returned 3")
    assert (error.request, error.sent) == ("request", True)


@pytest.mark.parametrize("seconds", [None, 0.0, 1.5])
def test_overloaded_says_when_to_come_back(seconds):
    error = told(Overloaded("every server is taken", retry_after=seconds))
    assert type(error) is Overloaded
    assert str(error) == "every server is taken"
    assert (error.retry_after, error.sent, error.reason) == (seconds, False, "overloaded")
    assert error.request == "request"


@pytest.mark.parametrize("data", ["soon", True, -1, -0.5, math.nan, math.inf, 10**400, 86401, [1]])
def test_a_time_that_is_none_is_not_waited_for(data):
    error = error_of(Refusal(Code.OVERLOADED, "Overloaded", "busy", data))
    assert error.retry_after is None


def test_a_whole_number_of_seconds_is_a_time():
    error = error_of(Refusal(Code.OVERLOADED, "Overloaded", "busy", 3))
    assert type(error.retry_after) is float
    assert error.retry_after == 3.0


@pytest.mark.parametrize("kind", [NoProc, CallTimeout, Disconnected, CallExit])
def test_another_end_of_a_call_over_there_is_a_server_exit_here(kind):
    error = told(kind("why", reason="why"))
    assert type(error) is ServerExit
    assert (error.kind, error.message) == (kind.__name__, "why")


def test_a_reply_that_cannot_be_sent_is_a_server_exit():
    error = told(EncodeError("cannot send reply[0]"))
    assert type(error) is ServerExit
    assert (error.kind, error.message) == ("EncodeError", "cannot send reply[0]")


def test_a_failed_start_and_an_ignored_one_stay_what_they_are():
    failed, ignored = told(StartError("init raised ValueError")), told(StartIgnored("init returned Ignore()"))
    assert type(failed) is StartError
    assert str(failed) == "init raised ValueError"
    assert type(ignored) is StartIgnored
    assert str(ignored) == "init returned Ignore()"


def test_the_reason_of_a_failed_start_arrives():
    assert error_of(Refusal(Code.START, "StartError", "why", None, ["value", 7])).reason == ["value", 7]


def test_any_other_error_is_a_failed_start():
    assert type(told(ConfigError("why"))) is StartError


BROKEN_RULES = [BadPacket, PacketTooLarge, UnsafeTerm, IdentifierMismatch, VersionMismatch, SignatureMismatch]


@pytest.mark.parametrize("kind", BROKEN_RULES)
def test_a_broken_rule_is_the_same_error_at_both_ends(kind):
    error = told(kind("what was wrong, and what to do"))
    assert type(error) is kind
    assert str(error) == "what was wrong, and what to do"


def test_every_broken_rule_of_the_tree_has_a_code():
    tree = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProtocolError)}
    assert tree == {ProtocolError, *BROKEN_RULES}


def test_a_broken_rule_without_a_code_of_its_own_is_a_bad_packet():
    assert refusal_of(ProtocolError("why")) == Refusal(Code.BAD_PACKET, "ProtocolError", "why")


def test_a_port_that_speaks_tls_is_a_bad_packet_here():
    error = error_of(Refusal(Code.PLAINTEXT, "BadPacket", "this port speaks TLS"))
    assert type(error) is BadPacket
    assert str(error) == "this port speaks TLS"


@pytest.mark.parametrize("code", [0, 7, 23, -1, 2**70])
def test_a_code_of_a_later_version_is_a_server_exit(code):
    error = error_of(Refusal(code, "Novelty", "something new"), "request")
    assert type(error) is ServerExit
    assert (error.kind, error.message, error.request) == ("Novelty", "something new", "request")


@pytest.mark.parametrize(
    ("code", "of_a_call", "of_the_line"),
    [
        (Code.REPLY, True, False),
        (Code.EXIT, True, True),
        (Code.BAD_RETURN, True, True),
        (Code.OVERLOADED, True, True),
        (Code.START, False, True),
        (Code.IGNORED, False, True),
        *((code, False, True) for code in Code if code >= 16),
        (99, True, True),
    ],
)
def test_a_code_is_about_a_call_or_about_the_line(code, of_a_call, of_the_line):
    assert (fits(code, 1), fits(code, None)) == (of_a_call, of_the_line)


@given(
    code=st.integers() | st.sampled_from(list(Code)),
    kind=st.text(),
    message=st.text(),
    data=st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3),
)
def test_any_refusal_is_some_error_of_the_tree(code, kind, message, data):
    assert isinstance(error_of(Refusal(code, kind, message, data, data)), ErpsError)
