"""examples/counter, as its docstring says."""

from __future__ import annotations

import signal

import pytest

SAID = """\
3 make 3
4 more make 7
after a reset, 1 makes 1
the server refused: unknown_request
"""
PUSHED = """\
the server says: the count is 3
the server says: the count is 7
the server says: the count is 1
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_counter_counts_pushes_refuses_and_stops(example, signum):
    make, serve, client = example.commands
    example.run(make)
    server = example.serve(serve)
    out = example.run(client).splitlines(keepends=True)
    pushed = [line for line in out if line.startswith("the server says")]
    assert "".join(line for line in out if line not in pushed) == SAID
    assert "".join(pushed) == PUSHED
    assert example.stop(server, signum) == (0, "")


def test_every_client_has_a_count_of_its_own(example):
    make, serve, client = example.commands
    example.run(make)
    example.serve(serve)
    assert "3 make 3\n" in example.run(client)
    assert "3 make 3\n" in example.run(client.replace("alice", "bob"))
