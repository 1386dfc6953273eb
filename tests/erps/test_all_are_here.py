"""The 102 tests of Erps 0.7.0 are all here: each file under its name, each test under its name, citing its source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# File of Erps below test/, without "_test.exs" -> the names of its tests, in their order.
TESTS = {
    "callbacks/client_connect": ["is triggered on connection"],
    "callbacks/client_init": ["can return {:ok, state}", "can just ignore", "can stop"],
    "callbacks/client": [
        "the client can process a {:noreply, state}",
        "the client can process a mutating {:noreply, state}",
        "the client can process a {:stop, reason, state}",
        "the client can process a {:noreply, state}",
        "the client can process a stop message",
        "when the server disconnects",
    ],
    "callbacks/push": ["servers respond when sent a push signal"],
    "callbacks/server_init_terminate": [
        "can return {:ok, state}",
        "can be sent into continue from init",
        "server can be sent into ignore from init",
        "server can be stopped by init",
        "traps a termination from a {:stop, _, _} cast result",
    ],
    "callbacks/server_local": [
        "a local client can also be returned the call result",
        "a local client can send the server into a continuation",
        "a local client can send the server into a noreply",
        "a local client can send the server into a noreply with a continuation",
        "a local client can stop the server with reply",
        "a local client can stop the server without reply",
        "a local client can send a cast",
        "a local client can send a cast with continuation",
        "a local client can cast a stop",
        "a local client can send a info",
        "a local client can send a info with a continuation",
        "a local client can send a stop",
    ],
    "callbacks/server_remote": [
        "a remote client receives a call result",
        "a remote client can send the server into a continuation",
        "a remote client can send the server into a noreply",
        "a remote client can send the server into a noreply with a continuation",
        "a remote client can stop the server with reply",
        "a remote client can stop the server without reply",
        "a remote client can send a cast",
        "a remote client can send a cast with continuation",
        "a remote client can cast a stop",
    ],
    "client_connection": ["calls result in disconnected atom", "casts don't fault"],
    "compile_time/compile_time": ["the server fails to compile", "the client fails to compile"],
    "dual_connection": ["you can have two clients connected to the same server"],
    "erps": ["can accept a call", "can accept a mutating cast", "with a string DNS name"],
    "is_remote": [
        "a normal GenServer's from resolves as false in is_remote/1",
        "an Erps.Server's from resolves as true in is_remote/1",
        "is_remote/1 can be used in guards",
    ],
    "mtu": ["can accept a call of size bigger than the MTU", "can send a push of size bigger than the MTU"],
    "multiplex": ["multiplexing tasks"],
    "multiverse": [
        "servers and clients get instantiated with the correct $callers value.",
        "servers get the correct $callers value when supervised.",
        "TCP/IP can be a wormhole between universes",
    ],
    "otp": [
        "the server dies",
        "client will get killed",
        "has the client reconnect if it dies",
        "has the server reconnect if it dies",
        "client will get killed",
        "supervising the daemon",
    ],
    "packet/decode": [
        "the most basic decode works",
        "identifiers decode",
        "matched identifiers succeed",
        "mismatched identifiers fail",
        "versions decode",
        "matched versions succeed",
        "mismatched versions fail",
        "attempting to add an unknown atom fails in safe mode",
        "unknown codes result in a error",
        "a single zero byte is a keepalive packet",
    ],
    "packet/encode": [
        "a very basic call is encoded",
        "a very basic cast is encoded",
        "a very basic error is encoded",
        "a very basic response is encoded",
        "a very basic push is encoded",
        "a keepalive is encoded",
        "version is encoded",
        "identifier is encoded",
        "at the default level it's smaller",
        "at the highest level it's also small",
    ],
    "parameters/client": [
        "the cast packet is branded with its version",
        "the call packet is branded with its version",
        "the cast packet is branded with its identifier",
        "the call packet is branded with its version",
        "the cast packet is compressed",
        "the cast packet can have varying levels of compression",
        "the server gets a keepalive",
    ],
    "parameters/server": [
        "a properly versioned packet gets accepted",
        "an unversioned packet gets rejected",
        "an old version packet gets rejected",
        "an incompatibly versioned packet gets rejected",
        "a properly identified packet gets accepted",
        "an unidentified packet gets rejected",
        "an misidentified packet gets rejected",
        "sending a safe payload succeeds",
        "sending an unsafe payload fails",
        "sending an unsafe payload succeeds",
    ],
    "tls": [
        "an erps system can make a connection via TLS",
        "tls options should be settable at the server layer",
    ],
    "transport_false": ["handle_call/3 is normal", "handle_cast/2 is normal", "handle_info/2 is normal"],
}


def ported(name):
    """The function that the test of this name has become."""
    return "test_" + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def path_of(file):
    folder, _, name = file.rpartition("/")
    return HERE / folder / f"test_{name}.py"


def functions(path):
    """The tests in a file, in their order."""
    tree = ast.parse(path.read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return sorted(found, key=lambda node: node.lineno)


def test_there_are_102():
    assert sum(map(len, TESTS.values())) == 102


def test_no_file_is_here_that_erps_has_not():
    assert {*HERE.rglob("test_*.py")} == {Path(__file__), *map(path_of, TESTS)}


@pytest.mark.parametrize("file", TESTS)
def test_each_test_of_a_file_is_here_under_its_name(file):
    assert [node.name for node in functions(path_of(file))] == list(map(ported, TESTS[file]))


@pytest.mark.parametrize("file", TESTS)
def test_each_test_cites_its_source(file):
    source = re.compile(rf'test/{file}_test\.exs(:\d+|, "[^"]+")\.')
    for node in functions(path_of(file)):
        assert source.match(ast.get_docstring(node) or ""), node.name


@pytest.mark.parametrize("file", TESTS)
def test_no_test_sleeps(file):
    assert "sleep" not in path_of(file).read_text()
