"""What is inside each packet: golden bytes, every wrong shape, and errors cut to what the peer takes."""

from __future__ import annotations

import math

import pytest
from dialogues import GOLDEN, NONCE, golden
from hypothesis import given
from hypothesis import strategies as st

from erps_gevent.errors import BadPacket, EncodeError
from erps_gevent.wire import payloads, terms
from erps_gevent.wire.packet import HEADER_SIZE, Type
from erps_gevent.wire.payloads import LEAST_SIZE, MESSAGE_SIZE, READERS, SHAPES, Packet
from erps_gevent.wire.refusals import Code, Refusal

HELLO = {"abilities": [], "max_size": 16777216, "nonce": NONCE}
WELCOME = {"keepalive": 25.0, "max_pending": 1000, "max_size": 16777216, "nonce": NONCE}

MEANINGS = {
    "hello": Packet(Type.HELLO, None, HELLO),
    "welcome": Packet(Type.WELCOME, None, WELCOME),
    "call": Packet(Type.CALL, 1, ("add", 3), {"t": 0.5}),
    "reply": Packet(Type.REPLY, 1, 42),
    "error": Packet(Type.ERROR, 1, Refusal(Code.REPLY, "no_stock", "none is left")),
    "cast": Packet(Type.CAST, None, "reset"),
    "push": Packet(Type.PUSH, None, ("changed", 42)),
    "cancel": Packet(Type.CANCEL, 1),
    "goaway": Packet(Type.GOAWAY, None, {}),
    "bye": Packet(Type.BYE, None, {}),
}


def read(type_: Type, payload: bytes) -> Packet:
    return READERS[type_](terms.decode(payload) if payload else None)


# golden bytes


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_each_packet_are_these(name):
    assert golden()[name].hex() == GOLDEN[name].hex()


@pytest.mark.parametrize("name", MEANINGS)
def test_the_bytes_of_each_packet_mean_this(name):
    meant = MEANINGS[name]
    packet = read(meant.type, GOLDEN[name][HEADER_SIZE:])
    assert packet == meant
    assert type(packet.value) is type(meant.value)


def test_every_type_but_the_keepalive_has_a_shape_and_a_reader():
    assert SHAPES.keys() == READERS.keys() == set(Type) - {Type.KEEPALIVE}


@pytest.mark.parametrize(
    ("ref", "item"),
    [
        (1, "01"),
        (23, "17"),
        (24, "1818"),
        (255, "18ff"),
        (256, "190100"),
        (65535, "19ffff"),
        (65536, "1a00010000"),
        (2**32 - 1, "1affffffff"),
        (2**32, "1b0000000100000000"),
        (2**63 - 1, "1b7fffffffffffffff"),
    ],
)
def test_a_reference_takes_the_shortest_form(ref, item):
    assert payloads.ref_item(ref).hex() == item
    assert terms.decode(payloads.ref_item(ref)) == ref
    assert read(Type.CANCEL, payloads.ref_item(ref)) == Packet(Type.CANCEL, ref)


# wrong shapes

ERROR = [1, 1, "kind", "message", None, None]
NO_REFS = [0, -1, 2**63, 2**70, "1", b"1", 1.0, True, None, [1], (1,)]
NO_META = [None, 1, "t", [], (), [("t", 1.0)], {"t": 1}, {"t": -1.0}, {"t": math.nan}, {"t": "1"}, {"t": True}]


def without(whole, name):
    return {key: value for key, value in whole.items() if key != name}


WRONG = {
    Type.CALL: [
        *(None, 1, "x", {}, [], (1, 2), [1], [1, 2, {}, 4]),
        *([ref, "x"] for ref in NO_REFS),
        *([1, "x", meta] for meta in NO_META),
    ],
    Type.CAST: [
        *(None, 1, "x", {}, [], (None, 2), [None], [None, 2, {}, 4], [1, "x"], [False, "x"]),
        *([None, "x", meta] for meta in NO_META),
    ],
    Type.PUSH: [
        *(None, 1, "x", {}, [], (None, 2), [None], [None, 2, {}, 4], [1, "x"], [False, "x"]),
        *([None, "x", meta] for meta in NO_META),
    ],
    Type.REPLY: [
        *(None, 1, "x", {}, [], (1, 2), [1], [1, 2, {}]),
        *([ref, "x"] for ref in NO_REFS),
    ],
    Type.ERROR: [
        *(None, 1, "x", {}, [], ERROR[:5], [*ERROR, None], tuple(ERROR)),
        *([ref, *ERROR[1:]] for ref in NO_REFS if ref is not None),
        *([1, code, *ERROR[2:]] for code in (None, "1", 1.0, True)),
        *([1, 1, kind, *ERROR[3:]] for kind in (None, 1, b"kind", ["kind"])),
        *([1, 1, "kind", message, None, None] for message in (None, 1, b"message")),
        [None, Code.REPLY, *ERROR[2:]],
        *([1, int(code), *ERROR[2:]] for code in Code if code > Code.OVERLOADED),
    ],
    Type.CANCEL: [*NO_REFS, {}, [1]],
    Type.HELLO: [
        *(None, 1, "x", [], {}, [HELLO]),
        *(without(HELLO, name) for name in HELLO),
        *({**HELLO, "max_size": size} for size in (None, 1000.0, True, -1, 0, LEAST_SIZE - 1)),
        *({**HELLO, "nonce": nonce} for nonce in (None, "x" * 16, b"", b"x" * 15, b"x" * 17)),
        *({**HELLO, "abilities": names} for names in (None, "signing", {}, [1], ["signing", None])),
    ],
    Type.WELCOME: [
        *(None, 1, "x", [], {}, [WELCOME]),
        *(without(WELCOME, name) for name in WELCOME if name != "keepalive"),
        *({**WELCOME, "max_size": size} for size in (None, 1000.0, True, -1, 0, LEAST_SIZE - 1)),
        *({**WELCOME, "nonce": nonce} for nonce in (None, "x" * 16, b"", b"x" * 15, b"x" * 17)),
        *({**WELCOME, "max_pending": count} for count in (None, 1.0, True, 0, -1)),
        *({**WELCOME, "keepalive": x} for x in ("25", True, 0, -1.0, 0.09, 86401, math.inf, math.nan, 10**400)),
    ],
    Type.GOAWAY: [1, 0, "x", [], [1], b""],
    Type.BYE: [1, 0, "x", [], [1], b""],
}


@pytest.mark.parametrize(
    ("type_", "body"), [pytest.param(type_, body, id=type_.name) for type_ in WRONG for body in WRONG[type_]]
)
def test_any_other_shape_is_a_bad_packet(type_, body):
    with pytest.raises(BadPacket) as info:
        READERS[type_](body)
    assert len(str(info.value)) < 200


def test_the_error_of_a_wrong_shape_says_which_is_right():
    with pytest.raises(BadPacket) as info:
        READERS[Type.CALL](1)
    text = "a call packet has a payload of the wrong shape: it has to be [ref, value, meta?]"
    assert str(info.value) == text


@pytest.mark.parametrize("type_", [Type.GOAWAY, Type.BYE])
@pytest.mark.parametrize("body", [None, {}, {"later": 1}])
def test_the_last_words_leave_room_for_a_later_version(type_, body):
    assert READERS[type_](body) == Packet(type_, None, body or {})


@pytest.mark.parametrize("interval", [None, 0.1, 1, 86400])
def test_a_keepalive_is_seconds_or_nothing(interval):
    assert READERS[Type.WELCOME]({**WELCOME, "keepalive": interval}).value["keepalive"] == interval


def test_what_a_later_version_adds_is_let_through():
    assert READERS[Type.HELLO]({**HELLO, "abilities": ["signing"], "colour": 1}).value["colour"] == 1
    assert READERS[Type.WELCOME]({**without(WELCOME, "keepalive"), "colour": 1}).value["colour"] == 1
    assert READERS[Type.CALL]([1, 2, {"trace": "x"}]).meta == {"trace": "x"}


# errors


def test_an_error_of_the_line_has_no_reference():
    assert payloads.error(None, Refusal(Code.VERSION, "k", "m"), 4096).hex() == "86f6146" + "16b616df6f6"


def test_a_reason_is_sent_where_it_can_be():
    assert read(Type.ERROR, payloads.error(1, Refusal(2, "k", "m", None, ["shutdown"]), 4096)).value.reason == [
        "shutdown"
    ]
    for reason in (object(), "x" * 64, [object()]):
        assert read(Type.ERROR, payloads.error(1, Refusal(2, "k", "m", None, reason), 4096)).value.reason is None


def test_data_that_cannot_be_sent_is_an_encode_error_with_the_path():
    with pytest.raises(EncodeError, match=r"cannot send data\['when'\]"):
        payloads.error(1, Refusal(1, "k", "m", {"when": object()}), 4096)


@pytest.mark.parametrize(("kind", "message", "word"), [(404, "m", "kind"), ("k", None, "message")])
def test_kind_and_message_have_to_be_text(kind, message, word):
    with pytest.raises(EncodeError) as info:
        payloads.error(1, Refusal(1, kind, message), 4096)
    assert f"the {word} of an error is text, not " in str(info.value)
    assert "write str(...) around it" in str(info.value)


def test_text_that_is_no_unicode_is_escaped():
    packet = read(Type.ERROR, payloads.error(1, Refusal(1, "k", "no such file: \udcff"), 4096))
    assert packet.value.message == "no such file: \\udcff"


class Word(str):
    """A str that lies about itself, as some lazy translations do."""

    def __str__(self):
        return "another"


def test_a_subclass_of_text_is_text():
    assert read(Type.ERROR, payloads.error(1, Refusal(1, Word("k"), Word("m")), 4096)).value[1:3] == ("k", "m")


def test_a_long_message_is_cut():
    packet = read(Type.ERROR, payloads.error(1, Refusal(2, "k", "x" * 100_000), 2**32 - 1))
    assert packet.value.message == "x" * MESSAGE_SIZE


@given(
    room=st.integers(LEAST_SIZE, 20_000),
    kind=st.text(st.sampled_from("a€\U0001f980\udcff"), max_size=2000),
    message=st.text(st.sampled_from("a€\U0001f980\udcff"), max_size=5000),
    reason=st.text(max_size=500),
    ref=st.sampled_from([None, 1, 2**63 - 1]),
)
def test_whatever_an_error_says_it_fits_into_what_the_peer_takes(room, kind, message, reason, ref):
    payload = payloads.error(ref, Refusal(2, kind, message, None, reason), room)
    assert len(payload) <= room
    assert read(Type.ERROR, payload).ref == ref
