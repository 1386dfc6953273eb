"""What the tests of the wire share: both ends, brought to any state, and one packet of each kind in hex."""

from __future__ import annotations

from typing import Any

from erps_gevent.wire.dialogue import Role, Session, State
from erps_gevent.wire.packet import KEEPALIVE, Stamp, Type
from erps_gevent.wire.refusals import Code, Refusal
from erps_gevent.wire.session import ClientSession, ServerSession
from erps_gevent.wire.signing import Keyring

STAMP = Stamp((1, 0, 3), "counter")
NONCE = bytes(range(16))
MEBIBYTE = 1 << 20

# Bytes 9 to 95 of each packet: version 1.0.3, "counter" padded to 36 bytes, no key, no signature.
_REST = "010003" + "636f756e746572" + 29 * "00" + 16 * "00" + 32 * "00"

GOLDEN = {
    name: bytes.fromhex(text)
    for name, text in {
        "keepalive": "65727073 00000000 00",
        # {"abilities": [], "max_size": 16777216, "nonce": bytes 0 to 15}
        "hello": "65727073 00000031 10" + _REST + "a3 69 6162696c6974696573 80"
        "68 6d61785f73697a65 1a01000000 65 6e6f6e6365 50 000102030405060708090a0b0c0d0e0f",
        # {"keepalive": 25.0, "max_pending": 1000, "max_size": 16777216, "nonce": bytes 0 to 15}
        "welcome": "65727073 00000048 11" + _REST + "a4 69 6b656570616c697665 fb4039000000000000"
        "6b 6d61785f70656e64696e67 1903e8 68 6d61785f73697a65 1a01000000 65 6e6f6e6365 50"
        "000102030405060708090a0b0c0d0e0f",
        # [1, ("add", 3), {"t": 0.5}]
        "call": "65727073 00000016 04" + _REST + "83 01 d85882 63616464 03 a1 6174 fb3fe0000000000000",
        # [1, 42]
        "reply": "65727073 00000004 02" + _REST + "82 01 182a",
        # [1, 1, "no_stock", "none is left", None, None]
        "error": "65727073 0000001b 01" + _REST + "86 01 01 68 6e6f5f73746f636b 6c 6e6f6e65206973206c656674 f6 f6",
        # [None, "reset"]
        "cast": "65727073 00000008 08" + _REST + "82 f6 65 7265736574",
        # [None, ("changed", 42)]
        "push": "65727073 0000000f 03" + _REST + "82 f6 d85882 67 6368616e676564 182a",
        # 1
        "cancel": "65727073 00000001 13" + _REST + "01",
        "goaway": "65727073 00000000 12" + _REST,
        "bye": "65727073 00000000 14" + _REST,
    }.items()
}


def client(**options: Any) -> ClientSession:
    made = ClientSession(STAMP, **options)
    made.nonce = NONCE
    return made


def server(**options: Any) -> ServerSession:
    made = ServerSession(STAMP, **options)
    made.nonce = NONCE
    return made


def take(session: Session, data: bytes) -> list[Any]:
    """What `data` means to `session`, which must find nothing wrong with it."""
    packets = session.receive(data)
    assert session.error is None, session.error
    return packets


def pair(**options: Any) -> tuple[ClientSession, ServerSession]:
    """Both ends of an open dialogue."""
    ends = client(**options), server(**options)
    take(ends[1], ends[0].hello())
    take(ends[0], ends[1].welcome(25.0, 1000))
    return ends


def golden() -> dict[str, bytes]:
    """The packets of GOLDEN, as the code makes them."""
    one, other = client(), server()
    packets = {"hello": one.hello()}
    take(other, packets["hello"])
    packets["welcome"] = other.welcome(25.0, 1000)
    take(one, packets["welcome"])
    packets["call"] = one.call(("add", 3), 0.5)[1]
    packets["cast"] = one.cast("reset")
    packets["cancel"] = one.cancel(1)
    packets["keepalive"] = one.keepalive()
    packets["reply"] = other.reply(1, 42)
    packets["push"] = other.push(("changed", 42))
    packets["error"] = other.refusal(1, Refusal(Code.REPLY, "no_stock", "none is left"))
    packets["goaway"] = other.goaway()
    packets["bye"] = one.bye()
    return packets


def in_state(role: Role, state: State, **options: Any) -> Any:
    """An end that has come to `state`; once it was open, the call 1 was made."""
    return _client_in(state, **options) if role is Role.CLIENT else _server_in(state, **options)


def _client_in(state: State, **options: Any) -> ClientSession:
    made = client(**options)
    steps = [
        (State.GREETING, lambda: made.hello()),
        (State.OPEN, lambda: (take(made, GOLDEN["welcome"]), made.call(("add", 3), 0.5))),
        (State.LEAVING, lambda: take(made, GOLDEN["goaway"])),
        (State.CLOSED, lambda: made.bye()),
    ]
    return _walked(made, state, steps)  # type: ignore[return-value]


def _server_in(state: State, **options: Any) -> ServerSession:
    made = server(**options)
    steps = [
        (State.GREETING, lambda: take(made, GOLDEN["hello"])),
        (State.OPEN, lambda: (made.welcome(25.0, 1000), take(made, GOLDEN["call"]))),
        (State.LEAVING, lambda: made.goaway()),
        (State.CLOSED, lambda: take(made, GOLDEN["bye"])),
    ]
    return _walked(made, state, steps)  # type: ignore[return-value]


def _walked(made: Session, state: State, steps: list[tuple[State, Any]]) -> Session:
    for after, step in steps:
        if made.state is state:
            break
        step()
        assert made.state is after
    return made


def framed(type_: Type, payload: bytes) -> bytes:
    """A packet of the shape that the frame asks for, whatever is in it."""
    return KEEPALIVE if type_ is Type.KEEPALIVE else STAMP.frame(type_, payload)


# A dialogue that is signed: the key "2024" with a secret of the bytes 0 to 31, the server's nonce the bytes 16 to 31.

SECRET = bytes(range(32))
RING = Keyring({"2024": SECRET})
SERVER_NONCE = bytes(range(16, 32))

# (who sends it, its name, how it is made), in order.
SIGNED: list[tuple[Role, str, Any]] = [
    (Role.CLIENT, "hello", lambda end: end.hello()),
    (Role.SERVER, "server_hello", lambda end: end.hello()),
    (Role.CLIENT, "proof", lambda end: end.proof()),
    (Role.SERVER, "welcome", lambda end: end.welcome(25.0, 1000)),
    (Role.CLIENT, "call", lambda end: end.call(("add", 3), 0.5)[1]),
    (Role.SERVER, "reply", lambda end: end.reply(1, 42)),
    (Role.CLIENT, "keepalive", lambda end: end.keepalive()),
    (Role.SERVER, "echo", lambda end: end.keepalive()),
    (Role.CLIENT, "cast", lambda end: end.cast("reset")),
    (Role.SERVER, "push", lambda end: end.push(("changed", 42))),
    (Role.CLIENT, "cancel", lambda end: end.cancel(1)),
    (Role.SERVER, "error", lambda end: end.refusal(1, Refusal(Code.REPLY, "no_stock", "none is left"))),
    (Role.SERVER, "goaway", lambda end: end.goaway()),
    (Role.CLIENT, "bye", lambda end: end.bye()),
]


class Signing:
    """Both ends of a dialogue that is signed, and what each of them said."""

    def __init__(
        self, ring: Keyring = RING, nonces: tuple[bytes, bytes] = (NONCE, SERVER_NONCE), **options: Any
    ) -> None:
        self.client = client(signing=ring, **options)
        self.server = server(signing=ring, **options)
        self.client.nonce, self.server.nonce = nonces
        self.packets: dict[str, bytes] = {}

    def ends(self, role: Role) -> tuple[Any, Any]:
        """The one that has this role, and the other."""
        return (self.client, self.server) if role is Role.CLIENT else (self.server, self.client)

    def until(self, name: str | None) -> Signing:
        """Say everything that comes before `name`; None: everything."""
        for role, step, make in SIGNED[len(self.packets) :]:
            if step == name:
                break
            one, other = self.ends(role)
            packet = self.packets[step] = one.sign(make(one))
            take(other, packet)
        return self
