"""Signing: who shares a secret, and that what they say is what was said, in order, now. No I/O, no clock.

    client                                                    server
    hello         key from the secret alone           ──▶     looks the key id up; nothing runs yet
                  ◀──  key that covers the hello      hello   with the server's nonce
    keepalive     the session's key, from here on     ──▶     only now the client is believed: its hello is judged
                  ◀──                               welcome   a place was free, init has run

A signature is HMAC-SHA256 over who sends it, the number of the packet on its way, the packet without its signature. The
keys are made by HKDF-SHA256 from the secret and all that was sent before, in which both ends have a fresh nonce. So a
packet counts at one place of one connection in one direction, and nowhere else. docs/protocol.md has it exactly.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256

from erps_gevent.errors import ConfigError, SignatureMismatch
from erps_gevent.wire.packet import HEADER_SIZE, MAGIC, Frame, Type
from erps_gevent.wire.pieces import Pieces

KEY_ID_SIZE = 16  # bytes, the HMAC key field of a header
LEAST_SECRET = 16  # bytes. One recorded hello is enough to try shorter ones out, with no server to slow that down.

KeyId = str | bytes

_SALT = b"erps_gevent signing 1"
_UNSIGNED = bytes(KEY_ID_SIZE)
_KEY_AT = 48  # where the HMAC key and the signature are in a packet
_SIGNATURE_AT = _KEY_AT + KEY_ID_SIZE
_BLANK = bytes(HEADER_SIZE - _KEY_AT)
_BEFORE = 8  # bytes of a packet that are not in Frame.header
_HELLOS = 2


class Keyring:
    """Secrets that both ends share, by the ids that tell which one a line is signed with.

    keys: {key id: secret}. A key id is text or bytes, 1 to 16 bytes of UTF-8 without NUL, and no secret: it is sent in
          clear. A secret is at least 16 random bytes, such as `secrets.token_bytes(32)`; a password is none.
    use:  the id of the key that a client signs with; it may be left out where there is only one key. A server takes
          every key of its ring, and answers under the client's.
    raises: ConfigError  something of this is wrong. No secret is in its text, nor in the repr.

    To change a key without a failed call: give the servers both, then the clients the new one, then take the old one
    from the servers.
    """

    __slots__ = ("_keys", "use")

    def __init__(self, keys: Mapping[KeyId, bytes], use: KeyId | None = None) -> None:
        if not isinstance(keys, Mapping) or not keys:
            raise ConfigError('a Keyring has at least one key: write Keyring({"2024": secret}, use="2024")')
        # The secrets themselves are not kept.
        self._keys: dict[bytes, tuple[KeyId, bytes]] = {}
        for key_id, secret in keys.items():
            field = _field(key_id)
            if field in self._keys:
                raise ConfigError(f"the key {key_id!r} is there twice, as text and as bytes; leave one of them out")
            self._keys[field] = key_id, _mac(_SALT, _checked(secret, key_id))
        if use is None and len(keys) > 1:
            raise ConfigError(f"use= must say which of the keys {self._ids()} is used for signing")
        self.use = next(iter(keys)) if use is None else use
        if _field(self.use) not in self._keys:
            raise ConfigError(f"use={use!r} is not in the Keyring; it has {self._ids()}")

    def find(self, field: bytes) -> tuple[KeyId, bytes] | None:
        """The key id as it was given, and the key to derive others from.

        field: the key id as a header has it, padded with NUL.
        """
        return self._keys.get(field)

    def _ids(self) -> str:
        return ", ".join(repr(key_id) for key_id, _ in self._keys.values())

    def __repr__(self) -> str:
        return f"<Keyring of {self._ids()}, use={self.use!r}>"


def _field(key_id: object) -> bytes:
    """The key id as a header has it."""
    if not isinstance(key_id, (str, bytes)):
        raise ConfigError(f'a key id is text or bytes, not {type(key_id).__name__}; write Keyring({{"2024": secret}})')
    try:
        field = key_id.encode() if isinstance(key_id, str) else bytes(key_id)
    except UnicodeEncodeError as exc:
        raise ConfigError(f"the key id {key_id!r} is no valid Unicode; write it without surrogates") from exc
    if not 0 < len(field) <= KEY_ID_SIZE:
        raise ConfigError(f"the key id {key_id!r} is {len(field)} bytes long; it has to be 1 to {KEY_ID_SIZE}")
    if b"\0" in field:
        raise ConfigError(f"the key id {key_id!r} has a NUL, which pads it on the wire; write it without")
    return field.ljust(KEY_ID_SIZE, b"\0")


def _checked(secret: object, key_id: object) -> bytes:
    if not isinstance(secret, bytes):
        raise ConfigError(
            f"the secret of the key {key_id!r} is bytes, not {type(secret).__name__}; "
            "make one with secrets.token_bytes(32)"
        )
    if len(secret) < LEAST_SECRET:
        raise ConfigError(
            f"the secret of the key {key_id!r} has {len(secret)} bytes, and can be guessed; it needs {LEAST_SECRET}: "
            "make one with secrets.token_bytes(32)"
        )
    return secret


class Signer:
    """Signs what one end of one line sends, and checks what comes.

    client: which end this is.

    key_id: of the key that the line is signed with, as this end's Keyring has it; None until a server knows it.
    """

    __slots__ = ("_field", "_hellos", "_key", "_mac", "_ring", "_sent", "_taken", "_transcript", "client", "key_id")

    def __init__(self, ring: Keyring, *, client: bool) -> None:
        self.client = client
        self.key_id: KeyId | None = None
        self._ring = ring
        self._field = b""  # the key id as headers have it; no header has this one
        self._key = b""  # what all keys of this line are derived from
        self._mac: hmac.HMAC | None = None  # that of the present key, to be copied
        self._sent = 0
        self._taken = 0
        self._hellos = 0
        self._transcript = sha256()
        if client:
            self._begin(_field(ring.use))

    @property
    def stranger(self) -> bool:
        """True while a server has had nothing that a key of its ring has signed."""
        return not self.client and not self._taken

    def sign(self, frame: bytes | Pieces) -> bytes:
        """The packet as it goes out. Has to be called in the order of sending, and everything has to be sent.

        What a server says to a stranger is not signed.
        """
        frame = bytes(frame)
        if self.stranger:
            return frame
        start = frame[:_KEY_AT] + self._field
        payload = memoryview(frame)[HEADER_SIZE:]
        signature = self._signature(self.client, self._sent, start, payload)
        self._sent += 1
        packet = b"".join((start, signature, payload))
        if self._hellos < _HELLOS:
            self._heard(packet)
        return packet

    def check(self, frame: Frame) -> int:
        """See that `frame` is what the other end sent next, and make of it what it was before it was signed.

        Returns its number, from 0.
        raises: SignatureMismatch  it is not.
        """
        if frame.hmac_key != self._field:
            self._meet(frame)
        frame.payload = payload = bytes(frame.payload)
        start = b"".join((MAGIC, len(payload).to_bytes(4, "big"), frame.header[: _SIGNATURE_AT - _BEFORE]))
        signature = self._signature(not self.client, self._taken, start, payload)
        if not hmac.compare_digest(signature, frame.signature):
            raise SignatureMismatch(self._why_not(frame))
        if self._hellos < _HELLOS:
            self._heard(b"".join((start, signature, payload)))
        frame.header = frame.header[: _KEY_AT - _BEFORE] + _BLANK
        self._taken += 1
        return self._taken - 1

    def _signature(self, by_client: bool, number: int, start: bytes, payload: bytes | memoryview) -> bytes:
        assert self._mac is not None
        mac = self._mac.copy()
        mac.update(b"".join((b"C" if by_client else b"S", number.to_bytes(8, "big"), start)))
        mac.update(payload)
        return mac.digest()

    def _meet(self, frame: Frame) -> None:
        """The key id is none that this end expects: it is a client's first packet, or wrong."""
        if self._mac is None and self._ring.find(frame.hmac_key):
            self._begin(frame.hmac_key)
        elif self._taken:
            raise SignatureMismatch(self._why_not(frame))
        elif frame.hmac_key != _UNSIGNED:
            shown = frame.hmac_key.rstrip(b"\0").decode("utf-8", "backslashreplace")
            wanted = f"this client uses {self.key_id!r}" if self.client else "this server's Keyring does not have it"
            raise SignatureMismatch(
                f"the {self._peer}'s {_name(frame)} is signed with the key {shown!r}, and {wanted}; "
                "give both ends a key in common"
            )
        elif self.client:
            raise SignatureMismatch(
                f"the server's {_name(frame)} is not signed: that server has no signing=, or not the key "
                f"{self.key_id!r} with the same secret, or needs another transport=; give both ends a key in common"
            )
        else:
            raise SignatureMismatch(f"the client's {_name(frame)} is not signed; {UNKNOWN}")

    def _begin(self, field: bytes) -> None:
        found = self._ring.find(field)
        assert found is not None
        self.key_id, self._key = found
        self._field = field
        self._use(b"client hello")

    def _heard(self, packet: bytes) -> None:
        """A hello, or the error in its place, has been signed or found right: the next key covers it."""
        self._hellos += 1
        self._transcript.update(packet)
        label = b"server hello" if self._hellos < _HELLOS else b"session"
        self._use(label + self._transcript.digest())

    def _use(self, info: bytes) -> None:
        # HKDF's expansion to the length of one hash.
        self._mac = hmac.new(_mac(self._key, info + b"\x01"), digestmod=sha256)

    def _why_not(self, frame: Frame) -> str:
        if not self._taken:
            return (
                f"the signature of the {self._peer}'s {_name(frame)} is wrong: it was changed on its way, or the two "
                f"ends have different secrets for the key {self.key_id!r}; give both the same"
            )
        return (
            f"the signature of the {self._peer}'s packet {self._taken}, a {_name(frame)}, is wrong: it, or one before "
            "it, was changed, replayed, reordered or dropped on its way; look for what is between the two ends"
        )

    @property
    def _peer(self) -> str:
        return "server" if self.client else "client"


UNKNOWN = "this server takes only what is signed with a key that it has: give both ends signing=Keyring(...)"


def _name(frame: Frame) -> str:
    return Type(frame.type).name.lower()


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, sha256).digest()
