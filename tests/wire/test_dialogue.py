"""Who may send what and when, every split, compression, limits, and garbage."""

from __future__ import annotations

import itertools
import random
import zlib

import pytest
from dialogues import GOLDEN, MEBIBYTE, NONCE, STAMP, Signing, client, framed, in_state, pair, server, take
from hypothesis import given
from hypothesis import strategies as st

from erps_gevent.errors import BadPacket, EncodeError, PacketTooLarge, ProtocolError, SignatureMismatch
from erps_gevent.wire import terms
from erps_gevent.wire.dialogue import DEFLATE_ABOVE, SENDS, TAKES, Role, Session, State
from erps_gevent.wire.packet import DEFLATED, KEEPALIVE, Stamp, Type
from erps_gevent.wire.payloads import Packet
from erps_gevent.wire.refusals import Code, Refusal

CLIENT, SERVER = Role.CLIENT, Role.SERVER
HEADER = slice(8, 96)

# The rules once more, drawn as in docs/protocol.md: before, and the state after each packet; "-" is not allowed.
# "call error" is about a call, "line error" about the line.

CLIENT_SENDS = """
            hello    call    cast    cancel   keepalive bye
    FRESH   GREETING -       -       -        -         -
    GREETING -       -       -       -        -         CLOSED
    OPEN    -        OPEN    OPEN    OPEN     OPEN      CLOSED
    LEAVING -        -       -       LEAVING  -         CLOSED
    CLOSED  -        -       -       -        -         -
"""
SERVER_TAKES = """
            hello    call    cast    cancel   keepalive bye
    FRESH   GREETING -       -       -        -         -
    GREETING -       -       -       -        -         CLOSED
    OPEN    -        OPEN    OPEN    OPEN     OPEN      CLOSED
    LEAVING -        LEAVING LEAVING LEAVING  LEAVING   CLOSED
    CLOSED  -        -       -       -        -         -
"""
SERVER_SENDS = """
            welcome  reply   push     error   line_error keepalive goaway
    FRESH   -        -       -        CLOSED  CLOSED     -         -
    GREETING OPEN    -       GREETING CLOSED  CLOSED     -         -
    OPEN    -        OPEN    OPEN     OPEN    CLOSED     OPEN      LEAVING
    LEAVING -        LEAVING LEAVING  LEAVING CLOSED     LEAVING   LEAVING
    CLOSED  CLOSED   CLOSED  CLOSED   CLOSED  CLOSED     CLOSED    CLOSED
"""
CLIENT_TAKES = """
            welcome  reply   push     error   line_error keepalive goaway
    FRESH   -        -       -        -       CLOSED     -         -
    GREETING OPEN    -       -        -       CLOSED     -         -
    OPEN    -        OPEN    OPEN     OPEN    CLOSED     OPEN      LEAVING
    LEAVING -        LEAVING LEAVING  LEAVING CLOSED     LEAVING   LEAVING
    CLOSED  CLOSED   CLOSED  CLOSED   CLOSED  CLOSED     CLOSED    CLOSED
"""
FROM_CLIENT = ("hello", "call", "cast", "cancel", "keepalive", "bye")
FROM_SERVER = ("welcome", "reply", "push", "error", "line_error", "keepalive", "goaway")


def cells(table):
    """(state, packet, state after or None) for each cell."""
    head, *rows = [line.split() for line in table.split("\n") if line.strip()]
    assert [row[0] for row in rows] == [state.name for state in State]
    for name, *after in rows:
        for packet, cell in zip(head, after, strict=True):
            yield State[name], packet, None if cell == "-" else State[cell]


LINE_ERROR = Refusal(Code.VERSION, "VersionMismatch", "why, and what to do")
SEND = {
    "hello": lambda end: end.hello(),
    "call": lambda end: end.call(("add", 3), 0.5)[1],
    "cast": lambda end: end.cast("reset"),
    "cancel": lambda end: end.cancel(1),
    "keepalive": lambda end: end.keepalive(),
    "bye": lambda end: end.bye(),
    "welcome": lambda end: end.welcome(25.0, 1000),
    "reply": lambda end: end.reply(1, 42),
    "push": lambda end: end.push(("changed", 42)),
    "error": lambda end: end.refusal(1, Refusal(Code.REPLY, "no_stock", "none is left")),
    "line_error": lambda end: end.refusal(None, LINE_ERROR),
    "goaway": lambda end: end.goaway(),
}
SECOND_CALL = STAMP.frame(Type.CALL, b"\x82\x02\x03")
PACKETS = {**GOLDEN, "call": SECOND_CALL, "line_error": server().refusal(None, LINE_ERROR)}
TYPES = {name: Type.ERROR if name == "line_error" else Type[name.upper()] for name in PACKETS}


@pytest.mark.parametrize(
    ("role", "before", "name", "after"),
    [(CLIENT, *cell) for cell in cells(CLIENT_SENDS)] + [(SERVER, *cell) for cell in cells(SERVER_SENDS)],
)
def test_an_end_sends_what_it_may_and_moves_with_it(role, before, name, after):
    end = in_state(role, before)
    if after is None:
        with pytest.raises(RuntimeError, match=f"cannot send {TYPES[name].name} while {before.name}"):
            SEND[name](end)
        assert end.state is before
    else:
        assert SEND[name](end)[8:9] == bytes([TYPES[name]])
        assert end.state is after


@pytest.mark.parametrize(
    ("role", "before", "name", "after"),
    [(CLIENT, *cell) for cell in cells(CLIENT_TAKES)] + [(SERVER, *cell) for cell in cells(SERVER_TAKES)],
)
def test_an_end_takes_what_the_other_may_send_and_moves_with_it(role, before, name, after):
    end = in_state(role, before)
    packets = end.receive(PACKETS[name])
    if after is None:
        assert packets == []
        assert isinstance(end.error, BadPacket)
        assert end.state is before
    else:
        assert [packet.type for packet in packets] == [TYPES[name]]
        assert end.error is None
        assert end.state is after


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(("role", "names"), [(CLIENT, FROM_CLIENT), (SERVER, FROM_SERVER)])
def test_an_end_never_takes_what_only_it_sends_itself(role, names, state):
    for name in set(names) - {"keepalive"}:
        end = in_state(role, state)
        assert end.receive(PACKETS[name]) == []
        assert isinstance(end.error, BadPacket)


def test_the_tables_have_a_row_for_each_state_of_each_end():
    assert SENDS.keys() == TAKES.keys() == set(itertools.product(Role, State))


def test_a_packet_out_of_place_is_told_what_would_be_in_place():
    end = server()
    end.receive(GOLDEN["call"])
    assert str(end.error) == (
        "a call packet has no place here: the dialogue is fresh, and what the client may send now is hello"
    )
    end = in_state(SERVER, State.CLOSED)
    end.receive(GOLDEN["bye"])
    assert str(end.error) == (
        "a bye packet has no place here: the dialogue is closed, and what the client may send now is nothing"
    )


def test_a_session_is_one_of_the_two_ends():
    class End(Session):
        role, peer = Role.CLIENT, Role.SERVER

    end = End(STAMP)
    with pytest.raises(NotImplementedError):
        end.receive(PACKETS["line_error"])
    with pytest.raises(NotImplementedError):
        end._open_early(None, 0)
    with pytest.raises(NotImplementedError):
        end._usual(Type.REPLY, b"", 0, 0)
    end._meet = lambda frame: None
    with pytest.raises(NotImplementedError):
        end.receive(PACKETS["line_error"])


# splits

TO_SERVER = [GOLDEN[name] for name in ("call", "keepalive", "cast", "cancel")]
TO_SERVER.append(
    client(compressed=9)._stamp.frame(Type.CALL | DEFLATED, zlib.compress(b"\x82\x02" + b"\x58\xff" + 255 * b"x"))
)
TO_SERVER.append(GOLDEN["bye"])
STREAM = b"".join(TO_SERVER)
MEANT = [
    Packet(Type.CALL, 1, ("add", 3), {"t": 0.5}),
    Packet(Type.KEEPALIVE),
    Packet(Type.CAST, None, "reset"),
    Packet(Type.CANCEL, 1),
    Packet(Type.CALL, 2, 255 * b"x"),
    Packet(Type.BYE, None, {}),
]


def open_server(**options):
    end = server(**options)
    take(end, GOLDEN["hello"])
    end.welcome(25.0, 1000)
    return end


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_dialogue_survives_any_split(cut):
    end = open_server()
    assert take(end, STREAM[:cut]) + take(end, STREAM[cut:]) == MEANT
    assert end.state is State.CLOSED
    assert end.received_bytes == len(GOLDEN["hello"]) + len(STREAM)


def test_a_dialogue_survives_one_byte_at_a_time():
    end = server()
    assert [p.type for i in range(len(GOLDEN["hello"])) for p in take(end, GOLDEN["hello"][i : i + 1])] == [Type.HELLO]
    end.welcome(25.0, 1000)
    assert [packet for i in range(len(STREAM)) for packet in take(end, STREAM[i : i + 1])] == MEANT


def test_many_packets_come_in_one_read():
    one, other = pair()
    calls = b"".join(one.call(number, None)[1] for number in range(1000))
    assert [(packet.ref, packet.value) for packet in take(other, calls)] == [(n + 1, n) for n in range(1000)]


@pytest.mark.parametrize("value", [b"x" * 16 * MEBIBYTE, "x" * 16 * MEBIBYTE], ids=["bytes", "text"])
def test_sixteen_mebibytes_come_in_one(value):
    one, other = pair(max_size=17 * MEBIBYTE)
    _, frame = one.call(value, 5.0)
    [packet] = take(other, bytes(frame))
    assert packet.value == value
    [answer] = take(one, bytes(other.reply(packet.ref, packet.value)))
    assert answer.value == value


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_a_dialogue_survives_any_splits(cuts):
    end = open_server()
    edges = [0, *sorted(cuts), len(STREAM)]
    assert [p for start, stop in itertools.pairwise(edges) for p in take(end, STREAM[start:stop])] == MEANT


def test_packets_before_a_broken_one_are_returned_and_nothing_after_it():
    end = open_server()
    assert end.receive(TO_SERVER[0] + b"junk" + TO_SERVER[2]) == MEANT[:1]
    error = end.error
    assert isinstance(error, BadPacket)
    assert end.receive(TO_SERVER[2]) == []
    assert end.error is error


def test_packets_before_one_that_has_no_place_are_returned_and_nothing_after_it():
    end = open_server()
    assert end.receive(TO_SERVER[0] + GOLDEN["hello"] + TO_SERVER[2]) == MEANT[:1]
    assert isinstance(end.error, BadPacket)


def test_an_end_between_two_packets_is_no_fault():
    end = open_server()
    take(end, STREAM)
    assert end.eof() is None


def test_an_end_inside_a_packet_is_one():
    end = open_server()
    take(end, STREAM[:-1])
    assert "in the middle of a packet" in str(end.eof())


@pytest.mark.parametrize("tail", [b"", b"er"])
def test_the_first_fault_stands_when_the_stream_ends(tail):
    end = open_server()
    end.receive(GOLDEN["hello"] + tail)
    error = end.error
    assert end.eof() is error is not None


# headers


@pytest.mark.parametrize("stamp", [Stamp((1, 0, 4), "counter"), Stamp((1, 0, 3), "other")], ids=["version", "name"])
def test_who_the_peer_is_cannot_change_in_the_middle(stamp):
    for role, name in ((SERVER, "cast"), (CLIENT, "push")):
        end = in_state(role, State.OPEN)
        end.receive(stamp.frame(TYPES[name], GOLDEN[name][96:]))
        assert isinstance(end.error, BadPacket)
        assert str(end.error) == "the version or identifier in a header changed in the middle of the dialogue"


@pytest.mark.parametrize("at", [48, 63, 64, 95], ids=str)
@pytest.mark.parametrize(
    ("role", "state", "name"),
    [
        (SERVER, State.FRESH, "hello"),
        (SERVER, State.OPEN, "cast"),
        (CLIENT, State.GREETING, "welcome"),
        (CLIENT, State.OPEN, "push"),
    ],
)
def test_a_signed_packet_is_refused_by_an_end_without_keys(role, state, name, at):
    end = in_state(role, state)
    packet = bytearray(GOLDEN[name])
    packet[at] = 1
    assert end.receive(bytes(packet)) == []
    assert isinstance(end.error, SignatureMismatch)
    assert "take signing= off the peer" in str(end.error)
    assert end.state is state


def test_a_first_packet_that_is_refused_teaches_nothing():
    end = server()
    end.receive(STAMP.frame(Type.HELLO, b"\xa0"))
    assert isinstance(end.error, BadPacket)
    assert end._peer_header is None


def test_an_end_that_signs_nothing_knows_no_key():
    one, other = pair()
    assert one.sign is other.sign is None
    assert one.key_id is other.key_id is None


def test_both_ends_of_a_line_that_signs_know_its_key():
    both = Signing()
    assert (both.client.key_id, both.server.key_id) == ("2024", None)
    both.until(None)
    assert (both.client.key_id, both.server.key_id) == ("2024", "2024")


def test_a_keepalive_that_is_signed_is_one():
    both = Signing().until("keepalive")
    assert take(both.server, both.client.sign(both.client.keepalive())) == [Packet(Type.KEEPALIVE)]
    assert take(both.client, both.server.sign(both.server.keepalive())) == [Packet(Type.KEEPALIVE)]


def test_what_comes_after_a_wrong_signature_is_not_looked_at():
    both = Signing().until("call")
    good = [both.client.sign(both.client.cast(number)) for number in range(3)]
    changed = good[1][:-1] + b"\7"
    assert [packet.value for packet in both.server.receive(good[0] + changed + good[2])] == [0]
    assert type(both.server.error) is SignatureMismatch
    assert both.server.receive(good[1]) == []


def test_the_nonce_is_fresh_for_each_session():
    nonces = {type(end)(STAMP).nonce for end in (client(), server()) for _ in range(50)}
    assert len(nonces) == 100
    assert {len(nonce) for nonce in nonces} == {len(NONCE)}


# compression

LONG = b"counter" * 1000


@pytest.mark.parametrize("level", [True, *range(1, 10)])
def test_a_long_value_is_deflated(level):
    one, other = pair(compressed=level)
    frame = one.cast(LONG)
    assert frame[8] == Type.CAST | DEFLATED
    assert len(frame) < len(LONG)
    assert take(other, frame) == [Packet(Type.CAST, None, LONG)]


@pytest.mark.parametrize("name", ["call", "cast", "reply", "push", "error"])
def test_every_packet_with_a_value_may_be_deflated(name):
    one, other = pair(compressed=True)
    one.call(1, None)
    send = {
        "call": lambda: one.call(LONG, 5.0)[1],
        "cast": lambda: one.cast(LONG),
        "reply": lambda: other.reply(1, LONG),
        "push": lambda: other.push(LONG),
        "error": lambda: other.refusal(1, Refusal(Code.REPLY, "k", "m", LONG)),
    }
    frame = send[name]()
    assert frame[8] == TYPES[name] | DEFLATED
    [packet] = take(other if name in ("call", "cast") else one, frame)
    assert (packet.value.data if name == "error" else packet.value) == LONG


@pytest.mark.parametrize("level", [False, 0])
def test_without_compression_a_long_value_goes_as_it_is(level):
    one, other = pair(compressed=level)
    frame = one.cast(LONG)
    assert frame[8] == Type.CAST
    assert take(other, frame) == [Packet(Type.CAST, None, LONG)]


def test_what_is_short_is_not_deflated():
    one, _ = pair(compressed=9)
    head = len(b"\x82\xf6\x58\xff")
    assert one.cast(b"x" * (DEFLATE_ABOVE - head - 1))[8] == Type.CAST
    assert one.cast(b"x" * DEFLATE_ABOVE)[8] == Type.CAST | DEFLATED


def test_what_deflating_does_not_shorten_is_not_deflated():
    one, other = pair(compressed=9)
    noise = random.Random(0).randbytes(1000)
    assert len(zlib.compress(noise, 9)) >= len(noise)
    frame = one.cast(noise)
    assert frame[8] == Type.CAST
    assert take(other, frame) == [Packet(Type.CAST, None, noise)]


def deflated(data, type_=Type.CAST):
    return STAMP.frame(type_ | DEFLATED, data)


def test_a_bomb_is_refused_and_no_more_of_it_is_inflated_than_is_allowed():
    end = open_server(max_size=1000)
    bomb = zlib.compress(bytes(100 * 1000), 9)
    assert len(bomb) < 1000
    assert end.receive(deflated(bomb)) == []
    assert isinstance(end.error, PacketTooLarge)
    assert f"of {len(bomb)} bytes inflates to more than max_size, 1000" in str(end.error)


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
def test_a_deflated_payload_may_inflate_to_just_max_size(size, fits):
    payload = b"\x82\xf6" + terms.encode(bytes(size - 5))
    assert len(payload) == size
    end = open_server(max_size=1000)
    assert len(end.receive(deflated(zlib.compress(payload)))) == fits
    assert (end.error is None) == fits


GOOD = zlib.compress(b"\x82\xf6" + terms.encode(LONG))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cut short"),
        (GOOD[:-1], "cut short"),
        (GOOD[:20], "cut short"),
        (GOOD + b"x", "bytes after its end"),
        (GOOD + GOOD, "bytes after its end"),
        (b"\x82\xf6\x01", "says that it is deflated, and is not"),
        (GOOD[:-4] + b"1234", "says that it is deflated, and is not"),
        (zlib.compress(b""), "wrong shape"),
    ],
    ids=["empty", "one byte less", "cut", "one byte more", "twice", "plain", "wrong sum", "nothing"],
)
def test_what_is_badly_deflated_is_a_bad_packet(data, text):
    end = open_server()
    assert end.receive(deflated(data)) == []
    assert isinstance(end.error, BadPacket)
    assert text in str(end.error)


# limits


def test_a_value_of_just_the_peers_max_size_is_sent_and_taken():
    one, other = client(), server(max_size=1000)
    take(other, one.hello())
    take(one, other.welcome(None, 1))
    frame = one.cast(bytes(1000 - 5))
    assert len(frame) == 96 + 1000
    assert len(take(other, frame)) == 1


SENDERS = {
    "call": (CLIENT, "request", lambda end, value: end.call(value, None)),
    "cast": (CLIENT, "request", lambda end, value: end.cast(value)),
    "reply": (SERVER, "reply", lambda end, value: end.reply(1, value)),
    "push": (SERVER, "message", lambda end, value: end.push(value)),
    "error": (SERVER, "data", lambda end, value: end.refusal(1, Refusal(Code.REPLY, "", "", value))),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", SENDERS)
def test_a_value_above_the_peers_max_size_is_refused_here(name, compressed):
    role, word, send = SENDERS[name]
    ends = dict(zip(Role, (client(compressed=compressed), server(compressed=compressed)), strict=True))
    ends[SERVER if role is CLIENT else CLIENT].max_size = 1000
    take(ends[SERVER], ends[CLIENT].hello())
    take(ends[CLIENT], ends[SERVER].welcome(None, 1))
    with pytest.raises(EncodeError) as info:
        send(ends[role], bytes(1000))
    text = str(info.value)
    assert text.startswith(f"{word} takes 10")
    assert (
        f"the {'server' if role is CLIENT else 'client'} takes 1000; send less at once, or raise max_size there" in text
    )
    assert ends[role].state is State.OPEN
    send(ends[role], bytes(900))


def test_a_peer_that_takes_more_than_a_header_can_declare_gets_no_more_than_that():
    one, other = client(max_size=2**40), server(max_size=2**40)
    take(other, one.hello())
    take(one, other.welcome(None, 1))
    assert one.peer_max_size == other.peer_max_size == 2**32 - 1


def test_a_packet_above_our_own_max_size_is_refused_before_it_is_there():
    end = open_server(max_size=1000)
    end.receive(STAMP.frame(Type.CAST, bytes(1001))[:9])
    assert isinstance(end.error, PacketTooLarge)


def test_unknown_tags_are_refused_unless_the_session_is_told_otherwise():
    payload = bytes.fromhex("82f6d9ffff01")
    end = open_server()
    end.receive(STAMP.frame(Type.CAST, payload))
    assert type(end.error).__name__ == "UnsafeTerm"
    [packet] = take(open_server(safe=False), STAMP.frame(Type.CAST, payload))
    assert packet.value.tag == 0xFFFF


# garbage

ENDS = st.tuples(st.sampled_from(Role), st.sampled_from(State), st.booleans())
plain = st.recursive(
    st.none() | st.integers(-2, 2**64) | st.floats() | st.binary(max_size=20) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
bodies = plain.map(terms.encode) | st.binary(max_size=60)
packets = st.builds(framed, st.sampled_from(Type), bodies)
packed = st.builds(
    lambda kind, body: deflated(zlib.compress(body), kind), st.sampled_from([Type.CALL, Type.REPLY]), bodies
)


def survives(end, chunks):
    """Feed all of `chunks`, and the end: packets or one error, whatever they are."""
    for chunk in chunks:
        before = end.error
        got = end.receive(chunk)
        assert all(type(packet) is Packet and type(packet.type) is Type for packet in got)
        if before is not None:
            assert got == []
            assert end.error is before
        assert end.error is None or isinstance(end.error, ProtocolError)
    assert end.eof() is None or isinstance(end.eof(), ProtocolError)


@given(end=ENDS, chunks=st.lists(st.binary(max_size=200) | packets | packed, max_size=8))
def test_garbage_gives_packets_or_one_named_error(end, chunks):
    role, state, safe = end
    survives(in_state(role, state, safe=safe), chunks)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "drop", "double", "insert"]), st.integers(0, 2**16), st.binary(min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=4,
)


def edited(stream, edits):
    data = bytearray(stream)
    for how, where, what in edits:
        at = where % (len(data) + 1)
        if how == "flip":
            data[at : at + 1] = bytes(byte ^ what[0] for byte in data[at : at + 1])
        elif how == "drop":
            del data[at : at + len(what)]
        elif how == "double":
            data[at:at] = data[max(0, at - 100 * what[0]) : at]
        else:
            data[at:at] = what
    return bytes(data)


@given(
    end=ENDS,
    names=st.lists(st.sampled_from(sorted(PACKETS)), max_size=6),
    edits=EDITS,
    cut=st.integers(0, 1000),
)
def test_a_dialogue_that_was_damaged_gives_packets_or_one_named_error(end, names, edits, cut):
    role, state, safe = end
    stream = edited(b"".join(PACKETS[name] for name in names), edits)
    survives(in_state(role, state, safe=safe), [stream[:cut], stream[cut:], KEEPALIVE])
