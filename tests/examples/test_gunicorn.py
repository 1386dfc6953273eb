"""examples/gunicorn, as its docstring says."""

from __future__ import annotations

import re
import signal

import pytest

pytest.importorskip("gunicorn", reason="no gunicorn here; the extra has it: pip install 'erps_gevent[hosting]'")


def test_the_counter_is_served_by_the_workers_and_ends_when_told(example):
    make, serve, client = example.commands
    example.run(make)
    server = example.start(serve)
    for line in server.stderr:
        if "Booting worker" in line:
            break
    out = example.run(client)
    assert re.fullmatch(r"3 more make 3, says worker (\d+)\n4 more make 7, says worker \1\n", out)
    status, log = example.stop(server, signal.SIGTERM)
    assert status == 0
    assert "Shutting down: Master" in log
    assert "Traceback" not in log
