"""What a daemon shows of its live servers, and what it says to all of their clients."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from erps_gevent.errors import CallExit, EncodeError
from erps_gevent.lines import Lines
from erps_gevent.otp.process import Pid
from erps_gevent.outbox import HIGH_WATER
from erps_gevent.server_connection import ServerConnection
from erps_gevent.transport.address import Peer

logger = logging.getLogger("erps_gevent")


@dataclass(frozen=True)
class LiveServer:
    """One live server process, as `Daemon.servers` shows it.

    connected_since: seconds since the epoch.
    calls:           count of calls answered. `pending` is the count of those that are not.
    """

    pid: Pid
    peer: Peer
    connected_since: float
    calls: int
    pending: int
    received_bytes: int

    @property
    def address(self) -> Any:
        """The peer's address."""
        return self.peer.address

    @property
    def subject(self) -> str | None:
        """The subject of the peer's certificate."""
        return self.peer.subject


def servers_of(lines: Lines) -> list[LiveServer]:
    """The live server processes, oldest first."""
    return [
        LiveServer(
            process.pid,
            connection.stream.peer,
            since,
            connection.calls_served,
            len(connection.calls),
            connection.session.received_bytes,
        )
        for process, since in list(lines.live.items())
        if isinstance(connection := process.inbox, ServerConnection)
    ]


def broadcast(lines: Lines, message: Any) -> int:
    """Push `message` to every client that has room for it; return the count of those. Does not park."""
    reached = 0
    for connection in lines.connections():
        if connection.outbox.size > HIGH_WATER:
            logger.warning("broadcast left out %s: it does not read", connection.stream.peer)
            continue
        try:
            connection.push(message, timeout=0)
        except (CallExit, EncodeError) as error:
            logger.warning("broadcast left out %s: %s", connection.stream.peer, error)
        else:
            reached += 1
    return reached
