"""Listening sockets that were handed down by their number."""

from __future__ import annotations

import os
import socket

import pytest

from erps_gevent.errors import ConfigError
from erps_gevent.transport.inherited import inherited


def test_a_listening_socket_is_taken_over_by_its_number():
    with socket.create_server(("127.0.0.1", 0)) as bound:
        taken = inherited(bound.fileno())
        assert taken.getsockname() == bound.getsockname()
        taken.close()
        assert bound.fileno() >= 0, "the number that was given stays open: systemd's belong to the whole process"


def test_a_number_that_is_no_socket_is_named(tmp_path):
    with open(tmp_path / "file", "w") as file, pytest.raises(ConfigError) as caught:
        inherited(file.fileno())
    assert "is no socket that was handed to this process" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_number_that_is_not_open_is_named():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(ConfigError, match=rf"fd://{writer} is no socket"):
        inherited(writer)


def test_a_socket_that_does_not_listen_is_named():
    with socket.socket() as idle, pytest.raises(ConfigError, match="does not listen: bind it, and call listen"):
        inherited(idle.fileno())
