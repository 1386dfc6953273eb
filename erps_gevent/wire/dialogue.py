"""The rules of a dialogue: who may send what, and when; and what both of its ends do alike. No I/O, no clock.

The table SENDS says what may be sent; TAKES, what may come in, which differs where packets cross on the way. A missing
key is the error path: a packet that the peer may not send now is a BadPacket; one that we may not send now is a bug of
ours and raises RuntimeError.

    client                                   server
    FRESH    ── hello ──────────────────▶    FRESH
    GREETING ◀───────────────── welcome ──   GREETING       its process is starting
    OPEN     ── call, cast, cancel ─────▶    OPEN
    OPEN     ◀──── reply, push, error ────   OPEN
    OPEN     ◀────────────────── goaway ──   LEAVING        it still serves what arrives
    LEAVING  ── cancel, bye ────────────▶    CLOSED

An error that is about no call is about the line: it leads to CLOSED from everywhere. `wire/session.py` has the two
ends, `wire/payloads.py` what is inside the packets. On a line that signs, two more packets lie between the client's
hello and its being judged: see `wire/signing.py`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from enum import Enum, auto
from functools import lru_cache
from struct import Struct

from erps_gevent.errors import BadPacket, EncodeError, PacketTooLarge, ProtocolError, SignatureMismatch
from erps_gevent.wire import terms
from erps_gevent.wire.packet import DEFLATED, HEADER_SIZE, KEEPALIVE, MAGIC, Frame, Framer, Stamp, Type
from erps_gevent.wire.payloads import NONCE_SIZE, READERS, Packet
from erps_gevent.wire.pieces import Pieces
from erps_gevent.wire.signing import KeyId, Keyring, Signer

DEFLATE_ABOVE = 256  # bytes. Below it deflating costs more than it saves.
HELLO_SIZE = 4096  # bytes. Before the peer has said who it is and what it takes, no packet needs more.

_PREFIX = Struct(">Q").unpack_from  # magic and payload size
_EMPTY = int.from_bytes(MAGIC, "big") << 32  # the same of a packet without a payload

KEEPALIVE_PACKET = Packet(Type.KEEPALIVE)


class Role(Enum):
    CLIENT = auto()
    SERVER = auto()


class State(Enum):
    FRESH = auto()
    GREETING = auto()
    OPEN = auto()
    LEAVING = auto()
    CLOSED = auto()


Moves = dict[int, State]
_C, _S = Role.CLIENT, Role.SERVER
_ANSWERS = (Type.REPLY, Type.PUSH, Type.ERROR, Type.KEEPALIVE)
_REQUESTS = (Type.CALL, Type.CAST, Type.CANCEL, Type.KEEPALIVE)

# (who sends, the state that it is in) -> {type: state after}.
SENDS: dict[tuple[Role, State], Moves] = {
    (_C, State.FRESH): {Type.HELLO: State.GREETING},
    (_C, State.GREETING): {Type.BYE: State.CLOSED},
    (_C, State.OPEN): {**dict.fromkeys(_REQUESTS, State.OPEN), Type.BYE: State.CLOSED},
    (_C, State.LEAVING): {Type.CANCEL: State.LEAVING, Type.BYE: State.CLOSED},
    (_C, State.CLOSED): {},
    (_S, State.FRESH): {Type.ERROR: State.CLOSED},
    # What init pushes waits in the outbox for the welcome.
    (_S, State.GREETING): {Type.WELCOME: State.OPEN, Type.PUSH: State.GREETING, Type.ERROR: State.CLOSED},
    (_S, State.OPEN): {**dict.fromkeys(_ANSWERS, State.OPEN), Type.GOAWAY: State.LEAVING},
    (_S, State.LEAVING): dict.fromkeys((*_ANSWERS, Type.GOAWAY), State.LEAVING),
    # A bye may be read together with what it followed, before that is answered. The client drops the answers.
    (_S, State.CLOSED): dict.fromkeys((*_ANSWERS, Type.GOAWAY, Type.WELCOME), State.CLOSED),
}
# (who has sent it, the state that the receiver is in) -> {type: state after}.
TAKES: dict[tuple[Role, State], Moves] = {
    **SENDS,
    (_S, State.GREETING): {Type.WELCOME: State.OPEN, Type.ERROR: State.CLOSED},
    # It was sent before the goaway was read.
    (_C, State.LEAVING): {**dict.fromkeys(_REQUESTS, State.LEAVING), Type.BYE: State.CLOSED},
}


def stays_of(sends: dict[tuple[Role, State], Moves]) -> dict[tuple[Role, State], frozenset[int]]:
    """What may be sent in each state without leaving it."""
    return {key: frozenset(type_ for type_, after in moves.items() if after is key[1]) for key, moves in sends.items()}


@lru_cache(maxsize=100)
def _heads(types: frozenset[Type], header: bytes) -> dict[bytes, Type]:
    """Bytes 8 to 95 of a packet of each of these types, and the type; all lines with one header share them.

    header: bytes 9 to 95.
    """
    return {bytes((type_,)) + header: type_ for type_ in types}


class Session:
    """What both ends share; use ClientSession or ServerSession.

    stamp:      version and identifier, as every header carries them.
    max_size:   bytes of payload that this end takes, deflated or not; at least `payloads.LEAST_SIZE`.
    compressed: False, True, or a zlib level from 0 to 9.
    safe:       False lets unknown CBOR tags through as `cbor2.CBORTag`.
    signing:    the keys; None signs nothing.

    sign: None, or what every packet made here has to pass through, in the order of sending.

    `receive` never raises. It returns the packets that came before a broken one and sets `error`; from then on the
    session takes nothing in.
    """

    role: Role
    peer: Role
    usual: frozenset[Type] = frozenset()  # the types of most packets that this end receives
    # What the dialect has in place of these tables, and where its dialogue begins.
    sends = SENDS
    takes = TAKES
    stays = stays_of(SENDS)
    begins = State.FRESH

    def __init__(
        self,
        stamp: Stamp,
        *,
        max_size: int = 16 * 1024 * 1024,
        compressed: bool | int = False,
        safe: bool = True,
        signing: Keyring | None = None,
    ) -> None:
        self.error: ProtocolError | None = None
        self.max_size = max_size
        self.peer_max_size = HELLO_SIZE
        self.safe = safe
        self.nonce = os.urandom(NONCE_SIZE)
        self.received_bytes = 0
        self.inflated_bytes = 0
        self._stamp = stamp
        self._tails = stamp.tails
        self._deflates = compressed is not False
        self._level = -1 if compressed is True else int(compressed)
        self.framer = Framer(max_size, signed=signing is not None)
        self._signer = None if signing is None else Signer(signing, client=self.role is Role.CLIENT)
        self.sign: Callable[[bytes | Pieces], bytes] | None = None if self._signer is None else self._signer.sign
        self._keepalive = KEEPALIVE if signing is None else stamp.keepalive()
        self._peer_header: bytes | None = None
        self._usual_heads: dict[bytes, Type] = {}
        self._usual_size = 0
        self._enter(self.begins)

    def receive(self, chunk: bytes | memoryview) -> list[Packet]:
        """Return the packets that `chunk` completes, in order; set `error` if something after them is wrong.

        chunk: bytes as they came, cut anywhere; or the start of `framer.room`, which they were read into.
        """
        packets: list[Packet] = []
        self.received_bytes += len(chunk)
        if self.error is not None:
            return packets
        at, framer = 0, self.framer
        try:
            heads = self._usual_heads
            if heads and framer.room is None:
                # Nearly all that comes is a request, or its answer, small and whole: this is the shorter way for these.
                # All else, and all that is wrong, goes through the framer and `_open`.
                data: bytes = chunk  # type: ignore[assignment]  # it was not read into a room
                if framer.held:
                    data = chunk = framer.continued(data)
                size = 0 if framer.held else len(data)  # nothing is whole yet, if something is held still
                most = self._usual_size
                while at < size:
                    start = at + HEADER_SIZE
                    type_ = heads.get(data[at + 8 : start])
                    if type_ is None:
                        break
                    payload_size = _PREFIX(data, at)[0] - _EMPTY  # of another magic: negative, or larger than any
                    end = start + payload_size
                    if not 0 < payload_size <= most or end > size:
                        break
                    try:
                        packet = self._usual(type_, data, start, end)
                    except ProtocolError:
                        break
                    if packet is None:
                        break
                    packets.append(packet)
                    at = end
            if at < len(chunk):
                for frame in framer.feed(chunk[at:] if at else chunk):
                    signer, payload = self._signer, frame.payload
                    packets.append(self._open(frame) if signer is None else self._open_signed(frame, signer))
                    if isinstance(payload, Pieces):
                        payload.free()
        except ProtocolError as error:
            self.error = error
        else:
            self.error = framer.error
        return packets

    def _usual(self, type_: Type, chunk: bytes, start: int, end: int) -> Packet | None:
        """The packet whose payload is `chunk[start:end]`, at least a byte. None, or an error: it takes the long way.

        raises: ProtocolError
        """
        raise NotImplementedError

    def eof(self) -> ProtocolError | None:
        """What is wrong with the stream ending here, if anything: bytes of an unfinished packet are left."""
        try:
            self.framer.eof()
        except ProtocolError as error:
            return self.error or error
        return self.error

    def keepalive(self) -> bytes:
        self._after(Type.KEEPALIVE)
        return self._keepalive

    @property
    def key_id(self) -> KeyId | None:
        """The id of the key that the peer has signed with; None if it has not."""
        return None if self._signer is None else self._signer.key_id

    def _enter(self, state: State) -> None:
        """Nothing else assigns `state`."""
        self.state = state
        # Two look-ups less for each packet of a call.
        self._sends = self.sends[self.role, state]
        self._stays = self.stays[self.role, state]
        self._takes = self.takes[self.peer, state]
        # What is usual changes no state, and comes in the states after the greeting alone.
        if self._signer is None and self._peer_header is not None and self.usual <= self._takes.keys():
            self._usual_heads = _heads(self.usual, self._peer_header)
        else:
            self._usual_heads = {}
        self._usual_size = min(self.framer.max_size, terms.LARGE - 1)

    def _open(self, frame: Frame) -> Packet:
        after = self._takes.get(frame.type)
        if after is None:
            raise BadPacket(self._misplaced(Type(frame.type)))
        if frame.type == KEEPALIVE_PACKET.type:
            return KEEPALIVE_PACKET
        header = frame.header[1:]
        if header != self._peer_header:
            self._check_header(frame)
        payload = self._inflated(bytes(frame.payload)) if frame.deflated else frame.payload
        packet = READERS[frame.type](terms.decode(payload, self.safe) if payload else None)
        after = self._judged(packet, after)
        self._peer_header = header
        if after is not self.state:
            self._enter(after)
        return packet

    def _open_signed(self, frame: Frame, signer: Signer) -> Packet:
        """Nothing of a frame is inflated, decoded or judged before its signature."""
        number = signer.check(frame)
        return self._open(frame) if number > 1 else self._open_early(frame, number)

    def _open_early(self, frame: Frame, number: int) -> Packet:
        """The first two frames of a peer that signs."""
        raise NotImplementedError

    def _misplaced(self, type_: Type) -> str:
        who = self.peer.name.lower()
        may = ", ".join(Type(kind).name.lower() for kind in self._takes) or "nothing"
        text = f"a {type_.name.lower()} packet has no place here: the dialogue is {self.state.name.lower()}"
        return f"{text}, and what the {who} may send now is {may}"

    def _check_header(self, frame: Frame) -> None:
        """The first packet says who the peer is; all others must say the same."""
        if any(frame.hmac_key) or any(frame.signature):
            raise SignatureMismatch("the packet is signed and this end was given no keys; take signing= off the peer")
        if self._peer_header is not None:
            raise BadPacket("the version or identifier in a header changed in the middle of the dialogue")
        self._meet(frame)

    def _meet(self, frame: Frame) -> None:
        """Judge the version and identifier of the peer's first packet. raises: a ProtocolError"""
        raise NotImplementedError

    def _judged(self, packet: Packet, after: State) -> State:
        """Judge what the shape of a packet does not say, learn from it, and return the state after it.

        raises: BadPacket
        """
        raise NotImplementedError

    def _inflated(self, payload: bytes) -> bytes:
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(payload, self.max_size + 1)
        except zlib.error as exc:
            raise BadPacket("a payload says that it is deflated, and is not") from exc
        if len(data) > self.max_size:
            raise PacketTooLarge(
                f"a deflated payload of {len(payload)} bytes inflates to more than max_size, {self.max_size}"
            )
        if not inflater.eof or inflater.unused_data:
            raise BadPacket("a deflated payload is cut short, or has bytes after its end")
        self.inflated_bytes += len(data)
        return data

    def _after(self, type_: Type) -> State:
        after = self._sends.get(type_)
        if after is None:
            raise RuntimeError(f"the {self.role.name.lower()} cannot send {type_.name} while {self.state.name}")
        return after

    def _frame(self, type_: Type, payload: bytes | Pieces, root: str) -> bytes | Pieces:
        """One packet with a value in it. Neither the state nor anything else changes unless it can be sent.

        root: the word for the value in an error's text.
        """
        if len(payload) <= DEFLATE_ABOVE and type_ in self._stays:
            # The way of nearly every packet. Whoever takes packets takes larger ones than this.
            return b"".join((MAGIC, len(payload).to_bytes(4, "big"), self._tails[type_], payload))  # type: ignore[arg-type]
        after = self._after(type_)
        if len(payload) > self.peer_max_size:
            raise EncodeError(
                f"{root} takes {len(payload)} bytes, and the {self.peer.name.lower()} takes {self.peer_max_size}; "
                "send less at once, or raise max_size there"
            )
        type_byte = int(type_)
        if self._deflates and len(payload) > DEFLATE_ABOVE:
            deflated = zlib.compress(bytes(payload), self._level)
            if len(deflated) < len(payload):
                type_byte, payload = type_ | DEFLATED, deflated
        if after is not self.state:
            self._enter(after)
        return self._stamp.frame(type_byte, payload)

    def _control(self, type_: Type, payload: bytes = b"") -> bytes:
        """One packet of the session's own, which is small and never deflated."""
        self._enter(self._after(type_))
        return bytes(self._stamp.frame(type_, payload))
