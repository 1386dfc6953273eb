"""examples/later, as its docstring says."""

from __future__ import annotations

import re

EXPECTED = r"""pong after 0\.\d s, while the others wait
a hash of 64 bytes
[123] offers after 0\.\d s, in time for timeout=1\.0
4 offers after \d\.\d s
"""


def test_later_answers_come_in_time_and_keep_nobody_waiting(example):
    serve, client = example.commands
    server = example.serve(serve)
    out = example.run(client)
    assert re.fullmatch(EXPECTED, out), out
    assert example.stop(server) == (0, "")


def test_the_server_takes_its_socket_file_again_after_a_crash(example):
    serve, _ = example.commands
    server = example.serve(serve)
    server.kill()
    server.wait()
    example.serve(serve)
