"""Listening sockets that somebody else has bound and handed down: systemd, a parent process."""

from __future__ import annotations

import os
import socket

from gevent import socket as green

from erps_gevent.errors import ConfigError


def inherited(descriptor: int) -> green.socket:
    """The gevent socket of a listening socket that this process has inherited.

    raises: ConfigError  it is no descriptor of this process, or no socket that listens.
    """
    try:
        sock = green.socket(fileno=os.dup(descriptor))
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        text = f"fd://{descriptor} is no socket that was handed to this process: {exc.strerror}"
        raise ConfigError(f"{text}; give the number that systemd or the parent process has used") from exc
    if not listens:
        sock.close()
        raise ConfigError(f"fd://{descriptor} is a socket that does not listen: bind it, and call listen(), first")
    return sock
