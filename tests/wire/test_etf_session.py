"""Both ends of a dialogue with Erps 0.7: its packets as recorded, what each end takes, and what it says of the rest."""

from __future__ import annotations

import pytest
from dialogues import GOLDEN, take
from erlang_terms import alike, recorded
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from erps_gevent.errors import (
    BadPacket,
    EncodeError,
    ErrorReply,
    IdentifierMismatch,
    Overloaded,
    PacketTooLarge,
    ProtocolError,
    ServerExit,
    SignatureMismatch,
    StartError,
    UnsafeTerm,
    VersionMismatch,
)
from erps_gevent.wire.dialogue import Role
from erps_gevent.wire.etf import encode
from erps_gevent.wire.etf_session import ERPS_SIZE, EtfClientSession, EtfServerSession, EtfSession
from erps_gevent.wire.etf_types import MAX_ATOMS, Atom
from erps_gevent.wire.packet import KEEPALIVE, Stamp, Type, parse_version
from erps_gevent.wire.payloads import Packet
from erps_gevent.wire.refusals import Code, Refusal, error_of
from erps_gevent.wire.session import State

STAMP = Stamp((0, 2, 6), "interop")
UNSTAMPED = Stamp((0, 0, 0), "")
RECORDED = {vector["name"]: vector for vector in recorded("packets.json")}
LONG = "erps" * 100


def client(**options):
    return EtfClientSession(STAMP, **options)


def server(versions="~=0.2", **options):
    return EtfServerSession(STAMP, SpecifierSet(versions), **options)


def pair(**options):
    return client(**options), server(**options)


def frame(type_, value, stamp=UNSTAMPED):
    """A packet of the type with the value for its payload, whether or not any end sends such."""
    return stamp.frame(type_, encode(value))


def fault(end, data):
    """What is wrong with the data; nothing of it may have been taken."""
    assert end.receive(data) == []
    return end.error


# As recorded of Erps.

SENT = {
    "call": lambda vector: calling(vector, 7, (Atom("add"), 1, 2)),
    "call with version and identifier": lambda vector: calling(vector, 134217727, Atom("ping")),
    "identifier of 36 bytes": lambda vector: calling(vector, 1, Atom("ping")),
    "cast": lambda vector: by_client(vector).cast((Atom("from"), Atom("ping"))),
    "cast compressed true": lambda vector: by_client(vector, compressed=True).cast(
        {Atom("list"): ["payload", "foolish"] * 2, Atom("loadpay"): "fooled", Atom("payload"): "payload"}
    ),
    "cast compressed 1": lambda vector: by_client(vector, compressed=1).cast(LONG),
    "cast compressed 9": lambda vector: by_client(vector, compressed=9).cast(LONG),
    "keepalive": lambda vector: by_client(vector).keepalive(),
    "push": lambda vector: server().push((Atom("changed"), "key", 3)),
    "reply": lambda vector: server().reply(7, Atom("pong")),
    "error text": lambda vector: server().refusal(None, Refusal(Code.IDENTIFIER, "IdentifierMismatch", "whatever")),
}


def by_client(vector, **options):
    return EtfClientSession(Stamp(parse_version(vector["version"]), vector["identifier"]), **options)


def calling(vector, ref, request):
    end = by_client(vector)
    end._last_ref = ref - 1
    found, packet = end.call(request, 5.0)
    assert found == ref
    return packet


def test_every_recorded_packet_is_sent_here_but_one_that_erps_never_sends():
    assert RECORDED.keys() - SENT.keys() == {"error with ref"}


@pytest.mark.parametrize("name", SENT)
def test_a_packet_is_sent_as_recorded(name):
    vector = RECORDED[name]
    assert SENT[name](vector).hex() == vector["bytes"]


TAKEN = {
    "call": (Type.CALL, 7, (Atom("add"), 1, 2)),
    "call with version and identifier": (Type.CALL, 134217727, Atom("ping")),
    "identifier of 36 bytes": (Type.CALL, 1, Atom("ping")),
    "cast": (Type.CAST, None, (Atom("from"), Atom("ping"))),
    "cast compressed true": (
        Type.CAST,
        None,
        {Atom("list"): ["payload", "foolish"] * 2, Atom("loadpay"): "fooled", Atom("payload"): "payload"},
    ),
    "cast compressed 1": (Type.CAST, None, LONG),
    "cast compressed 9": (Type.CAST, None, LONG),
    "keepalive": (Type.KEEPALIVE, None, None),
    "push": (Type.PUSH, None, (Atom("changed"), "key", 3)),
    "reply": (Type.REPLY, 7, Atom("pong")),
    "error with ref": (Type.ERROR, 7, Refusal(Code.REPLY, "error", "boom", "boom")),
    "error text": (
        Type.ERROR,
        None,
        Refusal(
            Code.IDENTIFIER,
            "",
            "the server says 'wrong identifier': give both ends the same identifier, or check the address",
        ),
    ),
}


def test_every_recorded_packet_is_taken():
    assert RECORDED.keys() == TAKEN.keys()


@pytest.mark.parametrize("name", TAKEN)
def test_a_recorded_packet_is_taken(name):
    vector = RECORDED[name]
    by_server = vector["type"] in ("push", "reply", "error")
    end = client() if by_server else EtfServerSession(Stamp((0, 0, 0), vector["identifier"]))
    end._last_ref = 7
    [packet] = take(end, bytes.fromhex(vector["bytes"]))
    assert packet == Packet(*TAKEN[name])
    assert alike(packet.value, TAKEN[name][2])


# The verbs that Erps has no packet for.


def test_the_line_is_open_at_once_and_nothing_is_said():
    one, other = pair()
    assert one.hello() == other.welcome(25.0, 1000) == b""
    assert one.state is other.state is State.OPEN


def test_a_caller_that_gives_up_and_a_client_that_leaves_say_nothing():
    one = client()
    ref, _ = one.call("slow", 1.0)
    assert one.cancel(ref) == one.bye() == b""
    assert one.state is State.CLOSED
    with pytest.raises(RuntimeError, match="cannot send CAST while CLOSED"):
        one.cast("too late")


def test_a_server_that_wants_to_be_left_serves_on_in_silence():
    one, other = pair()
    assert other.goaway() == b""
    assert other.state is State.LEAVING
    [call] = take(other, one.call("still", None)[1])
    [reply] = take(one, other.reply(call.ref, "served"))
    assert reply.value == "served"


def test_a_server_never_answers_a_keepalive():
    """It would crash a client of Erps."""
    one, other = pair()
    assert [packet.type for packet in take(other, one.keepalive())] == [Type.KEEPALIVE]
    assert other.keepalive() == b""


def test_a_client_takes_a_keepalive_all_the_same():
    assert [packet.type for packet in take(client(), KEEPALIVE)] == [Type.KEEPALIVE]


# References.


def test_references_count_from_one_and_an_unsendable_request_uses_none():
    one = client()
    assert one.call("a", None)[0] == 1
    with pytest.raises(EncodeError, match=r"cannot send request\[0\]"):
        one.call((object(),), None)
    assert one.call("b", None)[0] == 2


@pytest.mark.parametrize("ref", [0, 7, 2**27 - 1, 2**64 - 1])
def test_a_server_takes_any_reference_of_a_client_in_any_order_and_twice(ref):
    other = server()
    data = frame(Type.CALL, (ref, "x"), STAMP)
    assert [packet.ref for packet in take(other, data + frame(Type.CALL, (3, "x"), STAMP) + data)] == [ref, 3, ref]


@pytest.mark.parametrize(
    "payload", ["x", (1, 2, 3), ("1", "x"), (-1, "x"), (2**64, "x"), (True, "x"), [1, 2], (1.0, 2)]
)
def test_a_call_of_the_wrong_shape_is_a_bad_packet(payload):
    error = fault(server(), frame(Type.CALL, payload, STAMP))
    assert type(error) is BadPacket
    assert "it has to be {ref, request}" in str(error)


@pytest.mark.parametrize("type_", [Type.REPLY, Type.ERROR])
@pytest.mark.parametrize("payload", [7, (1, 2, 3), ("x", "1"), [1, 1], b"\xff"])
def test_an_answer_of_the_wrong_shape_is_a_bad_packet(type_, payload):
    one = client()
    one.call("x", None)
    error = fault(one, frame(type_, payload))
    assert type(error) is BadPacket
    assert "it has to be {value, ref}" in str(error)


def test_a_reply_is_no_text():
    assert "it has to be {value, ref}" in str(fault(client(), frame(Type.REPLY, "x")))


@pytest.mark.parametrize("ref", [0, 2, -1])
def test_an_answer_to_a_call_that_was_not_made_is_a_bad_packet(ref):
    one = client()
    one.call("x", None)
    error = fault(one, frame(Type.REPLY, ("x", ref)))
    assert str(error) == f"the server answers the call {ref}, and the last one was 1"


# Who is who.


@pytest.mark.parametrize(
    ("stamp", "cls", "text"),
    [
        (Stamp((0, 2, 6), "other"), IdentifierMismatch, "wrong identifier"),
        (Stamp((1, 0, 0), "interop"), VersionMismatch, "incompatible version"),
        (Stamp((1, 0, 0), "other"), IdentifierMismatch, "wrong identifier"),
    ],
)
def test_a_client_that_is_not_served_is_told_in_the_words_of_erps(stamp, cls, text):
    one, other = EtfClientSession(stamp), server()
    error = fault(other, one.call("x", None)[1])
    assert type(error) is cls
    packet = other.refusal(None, Refusal({IdentifierMismatch: 19, VersionMismatch: 20}[cls], cls.__name__, str(error)))
    assert packet == frame(Type.ERROR, text)
    [told] = take(one, packet)
    assert type(error_of(told.value)) is cls
    assert text in told.value.message


def test_version_and_identifier_are_judged_again_when_they_change():
    other = server()
    first, second = (EtfClientSession(Stamp((0, 2, patch), "interop")) for patch in (6, 7))
    assert len(take(other, first.cast(1) + second.cast(2))) == 2
    assert len(other.receive(EtfClientSession(Stamp((0, 1, 0), "interop")).cast(3) + first.cast(4))) == 0
    assert isinstance(other.error, VersionMismatch)


def test_a_server_without_identifier_and_versions_serves_everybody():
    other = EtfServerSession(UNSTAMPED)
    assert take(other, client().cast(1) + EtfClientSession(UNSTAMPED).cast(2))


@pytest.mark.parametrize("at", [48, 64, 95])
@pytest.mark.parametrize("by", ["client", "server"])
def test_what_is_signed_is_refused_before_its_payload_is_read(at, by):
    end, data = (server(), STAMP.frame(Type.CALL, b"\0")) if by == "client" else (client(), frame(Type.PUSH, 1))
    error = fault(end, data[:at] + b"k" + data[at + 1 :])
    assert type(error) is SignatureMismatch
    assert str(error) == "authentication provided"


def test_a_server_says_so_in_the_words_of_erps():
    exchange = recorded("server_exchanges.json")["authentication provided"]["exchange"][0]
    other = server()
    assert type(fault(other, bytes.fromhex(exchange["sent"]))) is SignatureMismatch
    assert other.refusal(None, Refusal(Code.SIGNATURE, "SignatureMismatch", "")).hex() == exchange["received"]


def test_the_identifier_of_a_server_is_not_looked_at():
    assert take(client(), frame(Type.PUSH, 1, Stamp((9, 9, 9), "whatever")))


# What has no place here.


@pytest.mark.parametrize("name", ["hello", "cancel", "bye", "reply", "push", "error", "goaway", "welcome"])
def test_a_server_refuses_packets_that_no_client_of_erps_sends(name):
    error = fault(server(), GOLDEN[name])
    assert type(error) is BadPacket
    assert f"a {name} packet has no place here" in str(error)
    assert 'do both ends have codec="etf"?' in str(error)


@pytest.mark.parametrize("name", ["welcome", "goaway", "call", "cast", "hello", "bye", "cancel"])
def test_a_client_refuses_packets_that_no_server_of_erps_sends(name):
    error = fault(client(), GOLDEN[name])
    assert f"a {name} packet has no place here" in str(error)


def test_the_bit_for_deflated_is_not_of_this_dialect():
    assert "has no place here" in str(fault(server(), STAMP.frame(Type.CALL | 0x80, encode((1, 2)))))


def test_nothing_is_taken_after_a_refusal_and_a_late_answer_is_no_bug():
    other = server()
    other.refusal(None, Refusal(Code.EXIT, "ValueError", "boom"))
    assert other.reply(1, "late")
    assert "nothing" in str(fault(other, client().cast(1)))


@pytest.mark.parametrize("payload", [b"", b"\x83", b"\x83z", b"\x84j", encode((1, 2)) + b"x", b"\x83P\0\0\0\1x"])
def test_a_payload_that_is_no_term_is_a_bad_packet(payload):
    for end, stamp, type_ in ((server(), STAMP, Type.CALL), (client(), UNSTAMPED, Type.REPLY)):
        assert type(fault(end, stamp.frame(type_, payload))) is BadPacket


# Sizes, depth, atoms.


def deep(depth):
    value = 1
    for _ in range(depth):
        value = [value, 300]
    return value


def test_what_may_be_sent_is_as_deep_as_what_is_taken():
    one, other = pair()
    assert take(other, one.cast(deep(64)))[0].value == deep(64)
    [call] = take(other, one.call(deep(64), None)[1])
    assert take(one, other.reply(call.ref, deep(64)))[0].value == deep(64)
    assert take(one, other.push(deep(64)))[0].value == deep(64)
    refusal = Refusal(Code.REPLY, "kind", "message", deep(64))
    assert take(one, other.refusal(call.ref, refusal))[0].value == refusal
    deeper = 65 * b"l\0\0\0\2" + b"a\1" + 65 * b"b\0\0\1\x2cj"
    for type_, payload in ((Type.CAST, b"\x83" + deeper), (Type.CALL, b"\x83h\2a\1" + deeper)):
        assert isinstance(fault(server(), STAMP.frame(type_, payload)), UnsafeTerm)


def test_neither_end_sends_more_than_it_takes_itself_nor_more_than_erps_can():
    assert client(max_size=ERPS_SIZE * 2).peer_max_size == ERPS_SIZE
    one, other = pair(max_size=1000)
    for send in (one.cast, lambda value: one.call(value, None), other.push, lambda value: other.reply(1, value)):
        with pytest.raises(EncodeError, match="takes 1000; send less at once, or raise max_size there"):
            send("x" * 1000)


@pytest.mark.parametrize("by", ["client", "server"])
def test_a_large_packet_is_refused_as_soon_as_its_size_is_known(by):
    end = server(max_size=1000) if by == "client" else client(max_size=1000)
    type_ = Type.CALL if by == "client" else Type.PUSH
    assert isinstance(fault(end, b"erps" + (1001).to_bytes(4, "big") + bytes((type_,))), PacketTooLarge)


def test_a_compressed_payload_is_bounded_by_what_it_becomes():
    one = client(compressed=True)
    packet = one.cast("x" * 5000)
    assert len(packet) < 200
    assert take(server(), packet)[0].value == "x" * 5000
    assert isinstance(fault(server(max_size=1000), packet), PacketTooLarge)


def test_what_was_compressed_counts_as_what_it_became():
    other = server()
    take(other, client(compressed=True).cast("x" * 5000))
    assert other.inflated_bytes == len(encode("x" * 5000))
    take(other, client().cast("x" * 5000))
    assert other.inflated_bytes == len(encode("x" * 5000))


@pytest.mark.parametrize("compressed", [True, 0, 9])
def test_a_server_compresses_too(compressed):
    one, other = client(), server(compressed=compressed)
    assert take(one, other.push(["x" * 500, Atom("ok")]))[0].value == ["x" * 500, Atom("ok")]


def test_atoms_are_counted_over_the_packets_of_a_line():
    one, other = client(), server()
    for n in range(MAX_ATOMS):
        take(other, one.cast(Atom(f"a{n}")))
    take(other, one.cast(Atom("a0")))
    assert isinstance(fault(other, one.cast(Atom("more"))), UnsafeTerm)
    unsafe = server(safe=False)
    for n in range(MAX_ATOMS + 1):
        take(unsafe, one.cast(Atom(f"a{n}")))


def test_a_large_integer_is_for_unsafe_ends():
    huge = 1 << 100_000
    with pytest.raises(EncodeError, match="safe mode"):
        client().cast(huge)
    assert take(server(safe=False), client(safe=False).cast(huge))[0].value == huge


# Errors about a call, and about the line.

REFUSALS = [
    Refusal(Code.REPLY, "no_stock", "none is left", {"left": 0, "at": (Atom("shelf"), None)}),
    Refusal(Code.EXIT, "ValueError", "boom", None, ["value", 3]),
    Refusal(Code.BAD_RETURN, "BadReturn", "no answer"),
    Refusal(Code.OVERLOADED, "Overloaded", "try later", 2.5),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.kind)
def test_an_error_about_a_call_comes_through_whole(refusal):
    one, other = pair()
    ref, _ = one.call("x", None)
    [packet] = take(one, other.refusal(ref, refusal))
    assert packet == Packet(Type.ERROR, ref, refusal)
    assert one.state is State.OPEN


def test_an_elixir_caller_gets_a_map_of_text_without_an_atom_that_it_may_not_know():
    packet = server().refusal(7, Refusal(Code.REPLY, "no_stock", "none is left"))
    body = {"code": 1, "kind": "no_stock", "message": "none is left", "data": None, "reason": None}
    assert packet == frame(Type.ERROR, (body, 7))


def test_data_that_cannot_be_sent_is_an_error_with_its_place_and_a_reason_is_left_out():
    one, other = pair()
    one.call("x", None)
    with pytest.raises(EncodeError, match=r"cannot send data\['when'\]: the type object"):
        other.refusal(1, Refusal(Code.REPLY, "kind", "message", {"when": object()}))
    with pytest.raises(EncodeError, match="kind and the message of an error are text"):
        other.refusal(1, Refusal(Code.REPLY, 7, "message"))
    for reason in (object(), "x" * 20_000):
        assert take(one, other.refusal(1, Refusal(Code.EXIT, "kind", "message", None, reason)))[0].value.reason is None


@pytest.mark.parametrize(
    ("term", "refusal"),
    [
        ("boom", Refusal(1, "error", "boom", "boom")),
        (Atom("not_found"), Refusal(1, "error", "not_found", Atom("not_found"))),
        ((Atom("oops"), 1), Refusal(1, "error", "", (Atom("oops"), 1))),
        ({"code": 99, "kind": 1, "message": "m"}, Refusal(1, "error", "", {"code": 99, "kind": 1, "message": "m"})),
        ({"code": "1"}, Refusal(1, "error", "", {"code": "1"})),
        ({"code": 20, "kind": "k", "message": "m"}, Refusal(1, "error", "", {"code": 20, "kind": "k", "message": "m"})),
        ({"code": 2, "kind": "k", "message": "m"}, Refusal(2, "k", "m")),
    ],
    ids=repr,
)
def test_any_term_about_a_call_becomes_an_error_reply(term, refusal):
    one = client()
    one.call("x", None)
    [packet] = take(one, frame(Type.ERROR, (term, 1)))
    assert packet.value == refusal
    assert isinstance(error_of(packet.value), ServerExit if refusal.code == 2 else ErrorReply)


@pytest.mark.parametrize(
    ("refusal", "text", "cls"),
    [
        (Refusal(Code.EXIT, "ValueError", "boom"), "ValueError: boom", ServerExit),
        (Refusal(Code.EXIT, "shutdown", ""), "shutdown", ServerExit),
        (Refusal(Code.OVERLOADED, "Overloaded", "later: soon", 2.5), "Overloaded: later: soon", Overloaded),
        (Refusal(Code.START, "StartError", "init raised"), "StartError: init raised", StartError),
        (Refusal(Code.TOO_LARGE, "PacketTooLarge", "a lot"), "PacketTooLarge: a lot", PacketTooLarge),
        (Refusal(Code.UNSAFE, "UnsafeTerm", "deep"), "UnsafeTerm: deep", UnsafeTerm),
        (Refusal(Code.PLAINTEXT, "BadPacket", "this port speaks TLS"), "BadPacket: this port speaks TLS", BadPacket),
        (Refusal(Code.EXIT, "ValueError", "bad \udcff"), "ValueError: bad \\udcff", ServerExit),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_about_the_line_is_a_text_and_ends_the_dialogue(refusal, text, cls):
    one, other = pair()
    packet = other.refusal(None, refusal)
    assert packet == frame(Type.ERROR, text)
    [told] = take(one, packet)
    assert told.ref is None
    assert type(error_of(told.value)) is cls
    assert one.state is other.state is State.CLOSED


@pytest.mark.parametrize("text", ["something went wrong", "no luck: at all", ""])
def test_another_text_about_the_line_is_the_exit_of_the_server(text):
    [told] = take(client(), frame(Type.ERROR, text))
    assert told.value == Refusal(Code.EXIT, "", text)


def test_a_long_text_is_cut():
    packet = server().refusal(None, Refusal(Code.EXIT, "E", "x" * 100_000))
    assert len(packet) == 96 + 6 + 16 * 1024
    assert len(server(max_size=1000).refusal(None, Refusal(Code.EXIT, "E", "x" * 100_000))) == 96 + 6 + 100


# Anything at all.


@given(st.sampled_from([Type.CALL, Type.CAST, Type.REPLY, Type.PUSH, Type.ERROR]), st.binary(max_size=40))
def test_any_payload_is_taken_or_named(type_, payload):
    end, stamp = (server(), STAMP) if type_ in (Type.CALL, Type.CAST) else (client(), UNSTAMPED)
    for body in (payload, b"\x83" + payload):
        packets = end.receive(stamp.frame(type_, body))
        assert len(packets) == (end.error is None)
        assert end.error is None or isinstance(end.error, ProtocolError)


@pytest.mark.parametrize("cut", range(0, 230, 7))
def test_packets_survive_any_split(cut):
    one, other = pair()
    data = one.cast("one") + one.keepalive() + one.call("two", None)[1]
    assert [packet.value for packet in take(other, data[:cut]) + take(other, data[cut:])] == ["one", None, "two"]


def test_an_end_has_to_say_what_its_packets_mean():
    class Half(EtfSession):
        role, peer = Role.SERVER, Role.CLIENT

        def _meet(self, frame):
            assert frame.version == (0, 2, 6)

    with pytest.raises(NotImplementedError):
        Half(STAMP).receive(client().cast(1))
