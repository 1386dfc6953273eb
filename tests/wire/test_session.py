"""Both ends: who meets whom, what each learns of the other, references, and a long dialogue against a plain model."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256

import pytest
from cbor2 import dumps
from dialogues import GOLDEN, NONCE, RING, SERVER_NONCE, STAMP, Signing, client, in_state, pair, server, take
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from packaging.specifiers import SpecifierSet

from erps_gevent.errors import (
    BadPacket,
    EncodeError,
    IdentifierMismatch,
    PacketTooLarge,
    SignatureMismatch,
    VersionMismatch,
)
from erps_gevent.wire.dialogue import Role
from erps_gevent.wire.packet import HEADER_SIZE, Stamp, Type
from erps_gevent.wire.payloads import LEAST_SIZE, TIME_HEAD, Packet
from erps_gevent.wire.pieces import IN_PIECES
from erps_gevent.wire.refusals import Code, Refusal, error_of, refusal_of
from erps_gevent.wire.safe import MAX_DEPTH
from erps_gevent.wire.session import ClientSession, ServerSession, State
from erps_gevent.wire.signing import UNKNOWN, Keyring


def meet(version, identifier, to="counter", versions=None):
    """A server that has heard the hello of a client."""
    other = ServerSession(Stamp((0, 0, 0), to), SpecifierSet(versions) if versions else None)
    other.receive(ClientSession(Stamp(version, identifier)).hello())
    return other


# hello and welcome


def test_hello_and_welcome_open_the_line_and_say_what_each_takes():
    one, other = client(max_size=2000), server(max_size=3000)
    [hello] = take(other, one.hello())
    assert hello.value == {"abilities": [], "max_size": 2000, "nonce": NONCE}
    [welcome] = take(one, other.welcome(12.5, 7))
    assert welcome.value == {"keepalive": 12.5, "max_pending": 7, "max_size": 3000, "nonce": NONCE}
    assert (one.peer_max_size, one.max_pending, one.keepalive_interval) == (3000, 7, 12.5)
    assert other.peer_max_size == 2000
    assert one.state is other.state is State.OPEN


def test_a_server_may_leave_the_interval_to_its_client():
    one, other = client(), server()
    take(other, one.hello())
    take(one, other.welcome(None, 7))
    assert one.keepalive_interval is None


def test_a_hello_may_not_be_larger_than_four_kibibytes():
    end = server()
    end.receive(b"erps" + (4097).to_bytes(4, "big") + bytes([Type.HELLO]))
    assert isinstance(end.error, PacketTooLarge)
    assert "max_size is 4096" in str(end.error)


def test_a_server_that_takes_little_takes_a_hello_of_four_kibibytes():
    end = server(max_size=LEAST_SIZE)
    end.receive(b"erps" + (4096).to_bytes(4, "big") + bytes([Type.HELLO]))
    assert end.error is None


def test_after_the_hello_a_server_takes_what_it_said():
    end = server(max_size=5000)
    take(end, GOLDEN["hello"])
    end.welcome(None, 1)
    assert len(take(end, STAMP.frame(Type.CAST, b"\x82\xf6\x59" + (4994).to_bytes(2, "big") + bytes(4994)))) == 1
    end.receive(STAMP.frame(Type.CAST, bytes(5001))[:9])
    assert isinstance(end.error, PacketTooLarge)


def test_before_the_hello_a_refusal_is_short():
    end = server()
    frame = end.refusal(None, Refusal(Code.BAD_PACKET, "BadPacket", "x" * 100_000))
    assert len(frame) < 1000
    [packet] = take(in_state(Role.CLIENT, State.GREETING), frame)
    assert packet.value.message == "x" * 409


# who meets whom


@pytest.mark.parametrize(("mine", "theirs"), [("counter", "counter"), ("", ""), ("anybody", ""), ("é" * 18, "é" * 18)])
def test_a_client_meets_a_server_of_its_identifier_or_of_none(mine, theirs):
    other = meet((1, 0, 3), mine, to=theirs)
    assert other.error is None
    one = ClientSession(Stamp((1, 0, 3), mine))
    one.hello()
    take(one, other.welcome(None, 1))


@pytest.mark.parametrize("theirs", ["countr", "", "Counter", "counter2"])
def test_a_client_of_another_identifier_is_told_both(theirs):
    end = meet((1, 0, 3), theirs)
    assert isinstance(end.error, IdentifierMismatch)
    text = f"the client's identifier is {theirs!r} and this server's is 'counter'; "
    assert str(end.error) == text + "give both the same, or check the address"
    assert end.state is State.FRESH


def test_a_server_of_another_identifier_is_told_both():
    one, other = client(), ServerSession(Stamp((0, 0, 0), "other"))
    one.hello()
    take(other, ClientSession(Stamp((0, 0, 0), "other")).hello())
    assert one.receive(other.welcome(None, 1)) == []
    assert isinstance(one.error, IdentifierMismatch)
    assert str(one.error) == (
        "this client's identifier is 'counter' and the server's is 'other'; give both the same, or check the address"
    )


def test_a_server_of_another_identifier_may_say_itself_what_is_wrong():
    one, other = client(), ServerSession(Stamp((0, 0, 0), "other"))
    other.receive(one.hello())
    assert isinstance(other.error, IdentifierMismatch)
    [packet] = take(one, other.refusal(None, Refusal(Code.IDENTIFIER, "IdentifierMismatch", str(other.error))))
    assert packet.value.message == str(other.error)


def test_an_identifier_that_is_no_text_is_shown_escaped():
    end = server()
    hello = bytearray(GOLDEN["hello"])
    hello[12:19] = b"count\xff\xfe"
    end.receive(bytes(hello))
    assert isinstance(end.error, IdentifierMismatch)
    assert r"count\\xff\\xfe" in str(end.error)


@pytest.mark.parametrize(
    ("version", "versions"),
    [((1, 0, 3), None), ((1, 0, 3), "~=1.0"), ((1, 9, 0), "~=1.0"), ((2, 0, 0), ">=1.2,<3"), ((0, 0, 0), "==0.0.0")],
)
def test_a_served_version_is_met(version, versions):
    assert meet(version, "counter", versions=versions).error is None


@pytest.mark.parametrize(
    ("version", "versions", "shown"),
    [((2, 0, 0), "~=1.0", "~=1.0"), ((0, 0, 0), ">=1", ">=1"), ((1, 0, 3), "!=1.0.3", "!=1.0.3")],
)
def test_any_other_version_is_told_what_is_served(version, versions, shown):
    end = meet(version, "counter", versions=versions)
    assert isinstance(end.error, VersionMismatch)
    assert str(end.error) == (
        f"the client's version is {'.'.join(map(str, version))} and this server serves {shown}; "
        "deploy a client of a served version, or widen versions="
    )


def test_a_server_says_nothing_of_versions_to_a_stranger():
    assert isinstance(meet((9, 0, 0), "stranger", versions="~=1.0").error, IdentifierMismatch)


# references


def test_references_count_from_one():
    one, _ = pair()
    assert [one.call("x", None)[0] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("request_", [object(), bytes(5000)], ids=["no data", "too large"])
def test_a_call_that_cannot_be_sent_uses_up_no_reference(request_):
    one, other = client(), server(max_size=1000)
    take(other, one.hello())
    take(one, other.welcome(None, 1))
    with pytest.raises(EncodeError, match="request"):
        one.call(request_, None)
    assert one.call("x", None)[0] == 1
    assert one.state is State.OPEN


@pytest.mark.parametrize("ref", [1, 5])
def test_references_have_to_grow(ref):
    end = in_state(Role.SERVER, State.OPEN)
    take(end, STAMP.frame(Type.CALL, b"\x82\x05\x03"))
    assert end.receive(STAMP.frame(Type.CALL, bytes([0x82, ref, 3]))) == []
    assert isinstance(end.error, BadPacket)
    assert str(end.error) == f"the reference {ref} of a call is not above the one before it, 5"


def test_references_may_leave_numbers_out():
    end = in_state(Role.SERVER, State.OPEN)
    assert take(end, STAMP.frame(Type.CALL, b"\x82\x17\x03"))[0].ref == 23


@pytest.mark.parametrize("type_", [Type.REPLY, Type.ERROR])
def test_an_answer_to_a_call_that_was_never_made_is_refused(type_):
    end = in_state(Role.CLIENT, State.OPEN)
    payload = b"\x82\x02\x03" if type_ is Type.REPLY else b"\x86\x02\x01\x60\x60\xf6\xf6"
    assert end.receive(STAMP.frame(type_, payload)) == []
    assert isinstance(end.error, BadPacket)
    assert str(end.error) == "the server answers the call 2, and the last one was 1"


def test_a_client_that_waits_for_its_welcome_takes_no_error_of_a_call():
    end = in_state(Role.CLIENT, State.GREETING)
    assert end.receive(GOLDEN["error"]) == []
    assert isinstance(end.error, BadPacket)
    assert end.state is State.GREETING


@pytest.mark.parametrize("remaining", [0.0, 0.5, 1e9, float("inf")])
def test_a_call_says_how_long_its_caller_waits(remaining):
    one, other = pair()
    assert take(other, one.call("x", remaining)[1])[0].meta == {"t": remaining}


def test_a_call_whose_caller_waits_for_ever_says_nothing():
    one, other = pair()
    assert take(other, one.call("x", None)[1])[0].meta is None


def test_a_call_whose_caller_waits_for_ever_has_no_meta_on_the_wire():
    one, _ = pair()
    assert one.call(3, None)[1][HEADER_SIZE:].hex() == "820103"


@given(ref=st.integers(1, 2**63 - 1), remaining=st.none() | st.floats(0), value=st.integers() | st.text())
def test_a_call_comes_back(ref, remaining, value):
    one, other = pair()
    take(other, one.cast("from here on the short way is taken"))
    one._last_ref = ref - 1
    assert one.call(value, remaining)[0] == ref
    one._last_ref = ref - 1
    meta = None if remaining is None else {"t": remaining}
    assert take(other, one.call(value, remaining)[1]) == [Packet(Type.CALL, ref, value, meta)]


def framed(one, payload):
    """A call with this payload from the client `one`."""
    return one._stamp.frame(Type.CALL, payload)


@pytest.mark.parametrize("meta", [{}, {"x": 1}, {"x": {"t": 5.0}}, {"a": 1, "t": 5.0}, {"t": 5.0, "a": "b" * 12}])
def test_a_meta_of_any_shape_is_read_as_it_is(meta):
    one, other = pair()
    take(other, one.call("first", 1.0)[1])
    assert take(other, framed(one, dumps([2, "second", meta]))) == [Packet(Type.CALL, 2, "second", meta)]


def test_bytes_of_a_value_that_look_like_a_meta_are_the_value():
    one, other = pair()
    value = TIME_HEAD + bytes(8)
    take(other, one.call(value, None)[1])
    assert take(other, one.call(value, None)[1])[0].value == value
    other.receive(framed(one, b"\x83" + dumps(3) + b"\x4c" + value))
    assert isinstance(other.error, BadPacket)


def long_way(session):
    """It takes nothing the short way any more."""
    session._usual_heads = {}
    return session


small_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
metas = st.fixed_dictionaries({"t": st.floats()}) | st.dictionaries(st.text(max_size=2), small_values, max_size=2)
bodies = st.tuples(st.none() | st.integers(-1, 3) | small_values, small_values)
payloads = st.one_of(
    st.binary(max_size=40),
    bodies.map(dumps),
    st.tuples(bodies, metas).map(lambda both: dumps([*both[0], both[1]])),
    st.tuples(bodies.map(dumps), st.binary(max_size=20)).map(b"".join),
    st.tuples(bodies.map(dumps), st.integers(0, 20)).map(lambda both: both[0][: both[1]]),
)


@given(type_=st.sampled_from([Type.CALL, Type.CAST, Type.REPLY, Type.PUSH]), payload=payloads)
# Of what is left without the meta, the end of the first item is made of what stands behind it.
@example(type_=Type.CALL, payload=bytes.fromhex("83 01 01 a1616b d90102 82 1850 18") + TIME_HEAD + bytes(8))
def test_the_short_way_takes_and_refuses_what_the_long_one_does(type_, payload):
    outcomes = []
    for way in (lambda session: session, long_way):
        one, other = pair()
        take(other, one.cast("first"))
        take(one, other.push("first"))
        ref, _ = one.call("x", None)
        end, sender = (other, one) if type_ in (Type.CALL, Type.CAST) else (one, other)
        outcomes.append((repr(way(end).receive(sender._stamp.frame(type_, payload))), repr(end.error), ref))
    assert outcomes[0] == outcomes[1]


def nested(value, depth):
    for _ in range(depth):
        value = (value,)
    return value


@pytest.mark.parametrize("leaf", [Fraction(2**70, 3), Decimal(2**70) / 8, "x"])
@pytest.mark.parametrize("way", [lambda session: session, long_way], ids=["short", "long"])
def test_the_deepest_value_that_is_sent_is_taken_either_way(leaf, way):
    one, other = pair()
    take(other, one.cast("first"))
    value = nested(leaf, MAX_DEPTH)
    assert take(way(other), one.call(value, 1.0)[1])[0].value == value
    with pytest.raises(EncodeError, match="nested deeper"):
        one.cast(nested(leaf, MAX_DEPTH + 1))


@pytest.mark.parametrize("end", ["client", "server"])
@given(size=st.integers(1, 300))
def test_packets_that_are_cut_go_the_short_way_too(end, size):
    one, other = pair()
    take(other, one.cast("first"))
    take(one, other.push("first"))
    receiver, made = (one, other.push) if end == "client" else (other, one.cast)
    receiver._open = None  # the long way
    stream = b"".join(made("x" * count) for count in range(20))
    got = [receiver.receive(stream[at : at + size]) for at in range(0, len(stream), size)]
    assert receiver.error is None
    assert [packet.value for packets in got for packet in packets] == ["x" * count for count in range(20)]


@pytest.mark.parametrize("payload", [dumps([1, "x", 2]), dumps("x"), dumps([1]), dumps([0, "x"]), dumps([None, "x"])])
@pytest.mark.parametrize("usual", [True, False], ids=["after others", "first"])
def test_what_is_no_call_is_refused_the_short_way_and_the_long_one(payload, usual):
    one, other = pair()
    if usual:
        take(other, one.cast("first"))
    assert other.receive(framed(one, payload)) == []
    assert isinstance(other.error, BadPacket)


def test_a_time_that_is_none_is_refused():
    one, other = pair()
    take(other, one.cast("first"))
    assert other.receive(framed(one, dumps([1, "x", {"t": -1.0}]))) == []
    assert isinstance(other.error, BadPacket)


@pytest.mark.parametrize("payload", [dumps("x"), dumps([1, 2, 3]), dumps([None, "x"]), dumps([9, "x"]), b""])
def test_what_is_no_reply_is_refused_after_others_too(payload):
    one, other = pair()
    ref, _ = one.call("x", None)
    take(one, other.reply(ref, "fine"))
    assert one.receive(other._stamp.frame(Type.REPLY, payload)) == []
    assert isinstance(one.error, BadPacket)


def test_casts_and_pushes_come_in_order_with_the_rest():
    one, other = pair()
    sent = [one.cast(1), one.call(2, None)[1], one.cast(3), one.cancel(1), one.cast(4)]
    assert [packet.value for packet in take(other, b"".join(sent))] == [1, 2, 3, None, 4]
    pushed = [other.push(1), other.reply(1, 2), other.keepalive(), other.push(3)]
    assert [packet.value for packet in take(one, b"".join(pushed))] == [1, 2, None, 3]


@pytest.mark.parametrize("type_", [Type.CAST, Type.PUSH])
def test_a_cast_or_push_with_a_reference_is_refused_after_others_too(type_):
    one, other = pair()
    if type_ is Type.CAST:
        take(other, one.cast("first"))
        sender, taker = one, other
    else:
        take(one, other.push("first"))
        sender, taker = other, one
    assert taker.receive(sender._stamp.frame(type_, dumps([1, "x"]))) == []
    assert isinstance(taker.error, BadPacket)


# lines that sign


def test_a_server_that_signs_believes_no_hello_before_it_was_answered():
    both = Signing().until("server_hello")
    assert both.server.state is State.FRESH
    both.until("proof")
    assert both.server.state is State.FRESH
    both.until("welcome")
    assert both.server.state is State.GREETING
    both.until("call")
    assert both.client.state is both.server.state is State.OPEN


def test_the_hellos_say_who_is_here_and_the_second_one_only_a_nonce():
    both = Signing(max_size=70_000)
    [hello] = take(both.server, both.client.sign(both.client.hello()))
    assert hello == (Type.HELLO, None, None, None)
    [answer] = take(both.client, both.server.sign(both.server.hello()))
    assert answer.value == {"abilities": [], "max_size": 4096, "nonce": SERVER_NONCE}
    [hello] = take(both.server, both.client.sign(both.client.proof()))
    assert hello.value == {"abilities": [], "max_size": 70_000, "nonce": NONCE}
    assert both.server.peer_max_size == 70_000


def judged(version, identifier, *, proved):
    """A server of "counter", 1.x, that has had a signed hello, and what it says to that client in the end."""
    one = ClientSession(Stamp(version, identifier), signing=RING)
    other = ServerSession(Stamp((0, 0, 0), "counter"), SpecifierSet("~=1.0"), signing=RING)
    take(other, one.sign(one.hello()))
    take(one, other.sign(other.hello()))
    if proved:
        other.receive(one.sign(one.proof()))
        [told] = take(one, other.sign(other.refusal(None, refusal_of(other.error))))
        assert one.state is State.CLOSED
        return error_of(told.value)
    assert other.error is None
    return None


@pytest.mark.parametrize(
    ("version", "identifier", "error"),
    [((2, 0, 0), "counter", VersionMismatch), ((1, 0, 0), "stranger", IdentifierMismatch)],
)
def test_only_who_has_proved_to_be_here_is_told_what_is_served(version, identifier, error):
    assert judged(version, identifier, proved=False) is None
    assert type(judged(version, identifier, proved=True)) is error


def test_what_a_stranger_is_told_is_always_the_same():
    for packet in (
        client().hello(),
        Signing(Keyring({"1999": bytes(32)})).until("server_hello").packets["hello"],
        Signing(Keyring({"2024": bytes(32)})).until("server_hello").packets["hello"],
        GOLDEN["call"],
        b"GET / HTTP/1.1",
        b"erps" + (4097).to_bytes(4, "big") + bytes([Type.HELLO]),
    ):
        end = server(signing=RING)
        end.receive(packet)
        said = end.sign(end.refusal(None, refusal_of(end.error)))
        stranger = client()
        stranger.hello()
        [told] = take(stranger, said)
        assert told.value == Refusal(Code.SIGNATURE, "SignatureMismatch", UNKNOWN)
        assert isinstance(error_of(told.value), SignatureMismatch)
        assert "give both ends signing=Keyring" in UNKNOWN


def test_a_stranger_that_should_speak_tls_is_told_so():
    end = server(signing=RING)
    refusal = Refusal(Code.PLAINTEXT, "BadPacket", "this port speaks TLS")
    stranger = client()
    stranger.hello()
    assert take(stranger, end.sign(end.refusal(None, refusal)))[0].value == refusal


def test_an_error_in_the_place_of_the_servers_hello_is_signed():
    both = Signing().until("server_hello")
    assert both.server.receive(b"junk") == []
    [told] = take(both.client, both.server.sign(both.server.refusal(None, refusal_of(both.server.error))))
    assert told.value.code == Code.BAD_PACKET
    assert both.client.state is State.CLOSED


def test_an_error_in_the_place_of_the_welcome_is_signed():
    both = Signing().until("welcome")
    refusal = Refusal(Code.START, "StartError", "init raised")
    assert take(both.client, both.server.sign(both.server.refusal(None, refusal)))[0].value == refusal


def test_a_server_takes_four_kibibytes_until_the_client_has_proved_to_be_here():
    both = Signing().until("proof")
    both.server.receive(b"erps" + (4097).to_bytes(4, "big") + bytes([Type.CALL]))
    assert isinstance(both.server.error, PacketTooLarge)


def test_a_signed_dialogue_begins_with_a_hello():
    both = Signing()
    assert both.server.receive(both.client.sign(STAMP.frame(Type.CAST, b"\x82\xf6\x01"))) == []
    assert isinstance(both.server.error, BadPacket)
    assert "what the client may send now is hello" in str(both.server.error)


def test_a_server_that_signs_begins_with_a_hello():
    both = Signing().until("server_hello")
    packet = both.server.sign(STAMP.frame(Type.WELCOME, b""))
    assert both.client.receive(packet) == []
    assert isinstance(both.client.error, BadPacket)
    assert str(both.client.error) == "a server that signs says hello first, and this one welcome"


@pytest.mark.parametrize("payload", [b"", b"\xa0"], ids=["none", "an empty map"])
def test_a_hello_of_a_server_has_the_shape_of_one(payload):
    both = Signing().until("server_hello")
    assert both.client.receive(both.server.sign(STAMP.frame(Type.HELLO, payload))) == []
    assert isinstance(both.client.error, BadPacket)


def test_the_hello_of_a_server_is_answered_with_a_keepalive():
    both = Signing().until("proof")
    assert both.server.receive(both.client.sign(STAMP.frame(Type.BYE, b""))) == []
    assert isinstance(both.server.error, BadPacket)
    assert str(both.server.error) == ("a client that signs answers our hello with a keepalive, and this one with a bye")


def test_a_second_hello_has_no_place_in_a_signed_dialogue():
    both = Signing().until("call")
    assert both.client.receive(both.server.sign(both.server.hello())) == []
    assert isinstance(both.client.error, BadPacket)
    assert both.server.receive(both.client.sign(STAMP.frame(Type.HELLO, b""))) == []
    assert isinstance(both.server.error, BadPacket)


# a long dialogue


class Dialogue(RuleBasedStateMachine):
    """A client and a server over two pipes that deliver what they like. The model is a queue of what is on its way."""

    signing = None

    @initialize(
        levels=st.tuples(*[st.sampled_from([False, True, 1, 9])] * 2),
        sizes=st.tuples(*[st.sampled_from([LEAST_SIZE, 5000, 1 << 24])] * 2),
        greeted=st.integers(0, 9).map(bool),
    )
    def begin(self, levels, sizes, greeted):
        self.client = client(compressed=levels[0], max_size=sizes[0], signing=self.signing)
        self.server = server(compressed=levels[1], max_size=sizes[1], signing=self.signing)
        self.to_server, self.to_client = bytearray(self.greeting()), bytearray()
        self.for_server, self.for_client = deque([(Type.HELLO, None, ...)]), deque()
        self.made = 0
        self.asked = {}  # ref: request, made and not answered yet
        self.unserved = deque()
        if greeted:
            self.the_server_reads(4096)
            self.welcome()
            self.the_client_reads(4096)

    def greeting(self):
        """What makes the server judge the client."""
        return self.client.hello()

    def may_ask(self):
        return self.client.state is State.OPEN

    def may_answer(self):
        return self.server.state in (State.OPEN, State.LEAVING)

    def to_the_server(self, packet, *meaning):
        self.to_server += self.client.sign(packet) if self.signing else packet
        self.for_server.append(meaning)

    def to_the_client(self, packet, *meaning):
        self.to_client += self.server.sign(packet) if self.signing else packet
        self.for_client.append(meaning)

    values = st.one_of(
        st.integers(),
        st.text(max_size=20),
        st.tuples(st.text(max_size=5), st.integers(0, 3000).map(lambda n: b"z" * n)),
    )

    @precondition(lambda self: self.server.state is State.GREETING)
    @rule()
    def welcome(self):
        self.to_the_client(self.server.welcome(25.0, 10), Type.WELCOME, None, ...)

    @precondition(may_ask)
    @rule(several=st.lists(values, min_size=1, max_size=4))
    def call(self, several):
        for value in several:
            self.call_one(value)

    def call_one(self, value):
        try:
            ref, packet = self.client.call(value, 5.0)
        except EncodeError:
            assert self.server.max_size < 5000
            return
        self.made += 1
        assert ref == self.made
        self.asked[ref] = value
        self.to_the_server(packet, Type.CALL, ref, value)

    @precondition(may_ask)
    @rule(number=st.integers())
    def cast(self, number):
        self.to_the_server(self.client.cast(number), Type.CAST, None, number)

    @precondition(lambda self: self.client.state in (State.OPEN, State.LEAVING) and self.asked)
    @rule(data=st.data())
    def cancel(self, data):
        ref = data.draw(st.sampled_from(sorted(self.asked)))
        self.to_the_server(self.client.cancel(ref), Type.CANCEL, ref, None)

    @precondition(may_ask)
    @rule()
    def ping(self):
        self.to_the_server(self.client.keepalive(), Type.KEEPALIVE, None, None)

    @precondition(lambda self: (self.client.state is State.LEAVING and not self.asked) or self.made > 20)
    @precondition(lambda self: self.client.state in (State.OPEN, State.LEAVING))
    @rule()
    def bye(self):
        self.to_the_server(self.client.bye(), Type.BYE, None, {})

    @precondition(lambda self: self.may_answer() and self.unserved)
    @rule(count=st.integers(1, 4))
    def reply(self, count):
        for _ in range(min(count, len(self.unserved))):
            self.reply_one()

    def reply_one(self):
        ref, value = self.unserved.popleft()
        try:
            packet = self.server.reply(ref, (ref, value))
        except EncodeError as error:
            assert self.client.max_size < 5000
            refusal = Refusal(Code.EXIT, "EncodeError", str(error))
            self.to_the_client(self.server.refusal(ref, refusal), Type.ERROR, ref, refusal)
        else:
            self.to_the_client(packet, Type.REPLY, ref, (ref, value))

    @precondition(lambda self: self.may_answer() and self.unserved)
    @rule()
    def refuse(self):
        ref, _ = self.unserved.pop()
        refusal = Refusal(Code.REPLY, "no_stock", "none is left", {"of": ref})
        self.to_the_client(self.server.refusal(ref, refusal), Type.ERROR, ref, refusal)

    @precondition(may_answer)
    @rule(number=st.integers())
    def push(self, number):
        self.to_the_client(self.server.push(number), Type.PUSH, None, number)

    @precondition(lambda self: self.may_answer() and self.made > 5)
    @rule()
    def goaway(self):
        self.to_the_client(self.server.goaway(), Type.GOAWAY, None, {})

    @rule(size=st.integers(1, 300) | st.just(5000))
    def the_server_reads(self, size):
        chunk, self.to_server = bytes(self.to_server[:size]), self.to_server[size:]
        for packet in take(self.server, chunk):
            expected = self.for_server.popleft()
            assert_is(packet, expected)
            if packet.type is Type.CALL:
                assert packet.meta == {"t": 5.0}
                self.unserved.append((packet.ref, packet.value))
            elif packet.type is Type.KEEPALIVE:
                self.to_the_client(self.server.keepalive(), Type.KEEPALIVE, None, None)

    @rule(size=st.integers(1, 300) | st.just(5000))
    def the_client_reads(self, size):
        chunk, self.to_client = bytes(self.to_client[:size]), self.to_client[size:]
        for packet in take(self.client, chunk):
            expected = self.for_client.popleft()
            assert_is(packet, expected)
            if packet.ref is not None:
                asked = self.asked.pop(packet.ref)
                if packet.type is Type.REPLY:
                    assert packet.value == (packet.ref, asked)

    @invariant()
    def nobody_finds_fault(self):
        assert self.client.error is None
        assert self.server.error is None

    def teardown(self):
        if not hasattr(self, "client"):
            return
        self.the_server_reads(len(self.to_server) or 1)
        if self.may_answer():
            self.reply(len(self.unserved))
        self.the_client_reads(len(self.to_client) or 1)
        assert not self.for_server
        assert not self.for_client
        assert self.client.eof() is None
        assert self.server.eof() is None
        if self.client.state is State.CLOSED:
            assert self.server.state is State.CLOSED
        else:
            assert not self.asked


def assert_is(packet, expected):
    type_, ref, value = expected
    assert (packet.type, packet.ref) == (type_, ref)
    if value is not ...:
        assert packet.value == value
        assert type(packet.value) is type(value)


TestDialogue = Dialogue.TestCase
TestDialogue.settings = settings(max_examples=60, stateful_step_count=60)


class SignedDialogue(Dialogue):
    """The same on a line that signs."""

    signing = RING

    def greeting(self):
        take(self.server, self.client.sign(self.client.hello()))
        take(self.client, self.server.sign(self.server.hello()))
        return self.client.sign(self.client.proof())


TestSignedDialogue = SignedDialogue.TestCase
TestSignedDialogue.settings = settings(max_examples=20, stateful_step_count=40)


# large byte strings


SIZES = [IN_PIECES - 1, IN_PIECES, 3 * IN_PIECES + 1]


def verbs(one, other, value):
    """Each verb with this value, at the end that says it: who hears it, the packet, its value in CBOR."""
    ref, call = one.call(value, 0.5)
    yield other, call, dumps([ref, value, {"t": 0.5}])
    yield one, other.reply(ref, value), dumps([ref, value])
    ref, call = one.call(value, None)
    yield other, call, dumps([ref, value])
    yield other, one.cast(value), dumps([None, value])
    yield one, other.push(value), dumps([None, value])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk_size", [1 << 30, 70_000])
def test_a_large_byte_string_is_sent_as_cbor_and_read_again(size, chunk_size):
    value = bytes(range(251)) * (size // 251) + bytes(size % 251)
    for end, packet, payload in verbs(*pair(), value):
        sent = bytes(packet)
        assert sent[HEADER_SIZE:] == payload
        chunks = [sent[at : at + chunk_size] for at in range(0, len(sent), chunk_size)]
        [heard] = [packet for chunk in chunks for packet in take(end, chunk)]
        assert type(heard.value) is bytes
        assert heard.value == value


def test_the_bytes_of_the_caller_are_sent_from_where_they_are():
    one, other = pair()
    value = bytes(IN_PIECES)
    for packet in (one.call(value, 1.0)[1], one.cast(value), other.reply(1, value), other.push(value)):
        start = len(packet) - len(value) - 12 if packet[8] == Type.CALL else len(packet) - len(value)
        assert packet.view(start, start + len(value)).obj is value


def test_a_large_buffer_that_may_change_is_copied():
    one, other = pair()
    value = bytearray(IN_PIECES)
    packets = [one.call(buffer, 1.0)[1] for buffer in (value, memoryview(value))]
    value[:] = b"x" * IN_PIECES
    assert [take(other, packet)[0].value for packet in packets] == [bytes(IN_PIECES)] * 2


def test_a_large_byte_string_that_is_too_large_uses_no_reference():
    one, _ = pair(max_size=IN_PIECES)
    with pytest.raises(EncodeError, match=f"and the server takes {IN_PIECES}"):
        one.call(bytes(IN_PIECES), 1.0)
    assert one.call("small", 1.0)[0] == 1


def test_a_large_byte_string_may_be_deflated():
    one, other = pair(compressed=True)
    _, packet = one.call(bytes(IN_PIECES), 1.0)
    assert len(packet) < 1000
    assert take(other, packet)[0].value == bytes(IN_PIECES)


def test_a_large_payload_that_stays_large_when_it_is_deflated_is_read():
    one, other = pair(compressed=True)
    value = b"".join(sha256(bytes([n])).digest() + bytes(32) for n in range(256)) * 4
    text = "".join(f"{n * n:07}" for n in range(100_000))
    for sent in (value * 4, text):
        _, packet = one.call(sent, 1.0)
        [heard] = [got for at in range(0, len(packet), 50_000) for got in take(other, bytes(packet[at : at + 50_000]))]
        assert heard.value == sent


def test_a_large_byte_string_is_signed_and_checked():
    both = Signing(max_size=1 << 20).until("call")
    client_end, server_end = both.ends(Role.CLIENT)
    value = bytes(range(256)) * (IN_PIECES // 256)
    packet = client_end.sign(client_end.call(value, 1.0)[1])
    [heard] = [got for at in range(0, len(packet), 50_000) for got in take(server_end, packet[at : at + 50_000])]
    assert heard.value == value
    changed = bytearray(client_end.sign(client_end.call(value, 1.0)[1]))
    changed[1000] ^= 1
    assert server_end.receive(bytes(changed)) == []
    assert isinstance(server_end.error, SignatureMismatch)


def test_what_was_read_is_not_overwritten_by_what_comes_next():
    one, other = pair()
    heard = []
    for letter in b"abc":
        packet = bytes(one.cast(bytes([letter]) * (4 * IN_PIECES)))
        heard += [got for at in range(0, len(packet), 60_000) for got in take(other, packet[at : at + 60_000])]
    assert [set(packet.value) for packet in heard] == [{97}, {98}, {99}]


def test_a_cut_byte_string_in_a_large_packet_is_a_bad_packet():
    _, other = pair()
    other.receive(STAMP.frame(Type.CAST, b"\x82\xf6\x5a" + (2 * IN_PIECES).to_bytes(4, "big") + bytes(IN_PIECES)))
    assert isinstance(other.error, BadPacket)
