"""The error tree: its shape, its attributes, and that every error survives pickling and copying."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from erps_gevent import errors
from erps_gevent.errors import (
    AlreadyRegistered,
    AlreadyStarted,
    BadPacket,
    BadReturn,
    CallExit,
    CallingSelf,
    CallTimeout,
    ConfigError,
    Disconnected,
    EncodeError,
    ErpsError,
    ErrorReply,
    Exit,
    IdentifierMismatch,
    MaxChildren,
    NoProc,
    NotFound,
    Overloaded,
    PacketTooLarge,
    ProtocolError,
    ServerExit,
    SignatureMismatch,
    StartError,
    StartIgnored,
    TaskTimeout,
    UnsafeTerm,
    VersionMismatch,
)

TREE = {
    ErpsError: (Exception,),
    ConfigError: (ErpsError, ValueError),
    EncodeError: (ErpsError, TypeError),
    ErrorReply: (ErpsError,),
    CallExit: (ErpsError,),
    CallTimeout: (CallExit, TimeoutError),
    NoProc: (CallExit,),
    CallingSelf: (CallExit,),
    ServerExit: (CallExit,),
    BadReturn: (ServerExit,),
    Disconnected: (CallExit, ConnectionError),
    Overloaded: (CallExit,),
    StartError: (ErpsError,),
    AlreadyStarted: (ErpsError,),
    AlreadyRegistered: (ErpsError,),
    StartIgnored: (ErpsError,),
    MaxChildren: (ErpsError,),
    NotFound: (ErpsError,),
    TaskTimeout: (ErpsError, TimeoutError),
    ProtocolError: (ErpsError,),
    BadPacket: (ProtocolError,),
    PacketTooLarge: (ProtocolError,),
    UnsafeTerm: (ProtocolError,),
    IdentifierMismatch: (ProtocolError,),
    VersionMismatch: (ProtocolError,),
    SignatureMismatch: (ProtocolError,),
    Exit: (BaseException,),
}

FACTS = {"reason": "timeout", "request": ("price", 7), "sent": True}
SAMPLES = [
    ErrorReply("not_found", "no such sku", {"sku": 7}),
    CallExit("it ended", **FACTS),
    CallTimeout("no answer in 5.0 s", **FACTS),
    NoProc("no process", **FACTS),
    CallingSelf("it called itself", **FACTS),
    ServerExit("it ended", **FACTS, kind="KeyError", message="'a'"),
    BadReturn("it ended", **FACTS, kind="BadReturn", message="4711"),
    Disconnected("the line is down", **FACTS),
    Overloaded("later", **FACTS, retry_after=1.5),
    StartError("it did not start", reason="bailout"),
    AlreadyStarted("taken", pid="a pid"),
    AlreadyRegistered("taken", pid="a pid"),
    Exit(("any", "value")),
]
SAMPLES += [kind("a sentence") for kind in TREE if kind not in set(map(type, SAMPLES))]
WAYS = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def test_the_tree_is_the_one_in_the_docstring():
    mine = [value for value in vars(errors).values() if getattr(value, "__module__", "") == errors.__name__]
    public = {kind for kind in mine if isinstance(kind, type) and issubclass(kind, BaseException)}
    assert public == set(TREE)
    for kind, bases in TREE.items():
        assert tuple(base for base in kind.__bases__ if base is not errors._Pickles) == bases
        assert re.search(rf"^ +{kind.__name__}\b", errors.__doc__, re.MULTILINE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_pickles_and_copies_with_its_attributes(error, way):
    twin = WAYS[way](error)
    assert twin is not error
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)


def test_a_fact_that_cannot_be_pickled_arrives_as_its_repr():
    error = CallTimeout("no answer", request=("run", print, lambda: None), reason="timeout")
    twin = pickle.loads(pickle.dumps(error))
    assert twin.request == repr(error.request)
    assert twin.reason == "timeout"
    assert copy.copy(error).request is error.request


class OutOfStock(ErrorReply):
    """What an application may write: an error of its own with a signature of its own."""

    def __init__(self, sku: int) -> None:
        super().__init__("out_of_stock", f"{sku} is sold out", sku)
        self.sku = sku


@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_an_application_keeps_its_attributes(way):
    twin = WAYS[way](OutOfStock(7))
    assert (twin.sku, twin.kind, str(twin)) == (7, "out_of_stock", "out_of_stock: 7 is sold out")


def test_an_error_reply_without_a_message_says_its_kind():
    assert str(ErrorReply("busy")) == "busy"
    assert (ErrorReply("busy").message, ErrorReply("busy").data) == ("", None)


@pytest.mark.parametrize("kind", [CallExit, CallTimeout, NoProc, CallingSelf, Disconnected, Overloaded])
def test_a_call_that_failed_was_not_sent_unless_it_says_so(kind):
    assert kind("x").sent is False


def test_a_server_that_ended_may_have_executed_the_call():
    assert ServerExit("x").sent is True


@pytest.mark.parametrize("kind", [Disconnected, CallTimeout, TaskTimeout])
def test_code_that_knows_nothing_of_this_library_catches_them_as_os_errors(kind):
    with pytest.raises(OSError, match=r"^down$"):
        raise kind("down")


def test_an_exit_is_no_exception():
    assert not issubclass(Exit, Exception)
    assert Exit("why").reason == "why"
