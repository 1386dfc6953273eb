"""The process of a client: the events that come from its line, and the loop that runs its callbacks."""

from __future__ import annotations

import weakref
from typing import Any

from erps_gevent.errors import Exit
from erps_gevent.otp.gen_server import GenServer, Loop
from erps_gevent.otp.messages import Event
from erps_gevent.otp.process import Process
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.words import NORMAL
from erps_gevent.transport.address import Peer


class Connected(Event):
    __slots__ = ("peer",)
    callback = "handle_connect"

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def __repr__(self) -> str:
        return f"connected to {self.peer}"

    def deliver(self, server: Any) -> Any:
        return server.handle_connect(self.peer)


class Lost(Event):
    __slots__ = ("error",)
    callback = "handle_disconnect"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"lost {brief(self.error)}"

    def deliver(self, server: Any) -> Any:
        return server.handle_disconnect(self.error)


class Pushed(Event):
    __slots__ = ("message",)
    callback = "handle_push"

    def __init__(self, message: Any) -> None:
        self.message = message

    def __repr__(self) -> str:
        return f"push {brief(self.message)}"

    def deliver(self, server: Any) -> Any:
        server._lifeline.pushes_waiting -= 1
        return server.handle_push(self.message)


class ClientLoop(Loop):
    """The loop of a client's process, which keeps the handle alive only while a callback runs.

    owner: the client itself if it was started as an OTP process, which nobody else refers to.
    """

    def __init__(
        self,
        process: Process,
        client: GenServer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        owner: GenServer | None,
    ) -> None:
        super().__init__(process, client, args, kwargs)
        # From the first moment on: whoever calls it by its name while init runs means the server.
        process.gateway = client._lifeline  # type: ignore[attr-defined]
        self.weak = weakref.ref(client)
        self.instance = owner

    def server(self) -> GenServer:
        client = self.weak()
        if client is None:
            raise Exit(NORMAL)
        return client
