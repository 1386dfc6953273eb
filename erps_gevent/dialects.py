"""What a line speaks, by the option `codec`: the sessions and connections of each dialect, and what it can encode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from erps_gevent.client_connection import ClientConnection
from erps_gevent.server_connection import ServerConnection
from erps_gevent.wire import terms
from erps_gevent.wire.session import ClientSession, ServerSession


class Dialect(NamedTuple):
    """What a line is made of.

    encode:  `encode(value, root)` raises EncodeError for what cannot be sent.
    options: the names of options that its connections take, beside those that all take.
    """

    client_session: type[ClientSession]
    client_connection: Callable[..., ClientConnection]
    server_session: type[ServerSession]
    server_connection: Callable[..., ServerConnection]
    encode: Callable[[Any, str], bytes]
    options: tuple[str, ...] = ()

    def own(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords of its connections that others do not have."""
        return {name: chosen[name] for name in self.options}


NAMES = ("cbor", "etf")


@cache
def dialect_of(codec: str) -> Dialect:
    """The dialect of this name, which is one of NAMES. The first use of "etf" loads its modules: few speak it."""
    if codec == "cbor":
        return Dialect(ClientSession, ClientConnection, ServerSession, ServerConnection, terms.encode)
    from erps_gevent.etf_connection import EtfClientConnection, EtfServerConnection
    from erps_gevent.wire import etf
    from erps_gevent.wire.etf_session import EtfClientSession, EtfServerSession

    return Dialect(
        EtfClientSession, EtfClientConnection, EtfServerSession, EtfServerConnection, etf.encode, ("pacing",)
    )
