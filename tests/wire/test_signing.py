"""Keys and who has them, every bit of a signed packet, and what a wire between the two ends may do to it."""

from __future__ import annotations

import itertools

import pytest
from dialogues import NONCE, RING, SECRET, SERVER_NONCE, SIGNED, STAMP, Signing, take
from hypothesis import given, settings
from hypothesis import strategies as st

from erps_gevent.errors import BadPacket, ConfigError, PacketTooLarge, ProtocolError, SignatureMismatch
from erps_gevent.wire.dialogue import Role
from erps_gevent.wire.packet import KEEPALIVE, Framer, Type
from erps_gevent.wire.session import ClientSession, ServerSession
from erps_gevent.wire.signing import Keyring, Signer

NAMES = [name for _, name, _ in SIGNED]
OTHER_SECRET = bytes(32)


# the keyring


def test_a_key_id_is_text_or_bytes_and_the_only_key_is_the_one_in_use():
    assert Keyring({"a": SECRET}).use == "a"
    assert Keyring({b"a": SECRET}).use == b"a"
    assert Keyring({"a": SECRET, "b": SECRET}, use="b").use == "b"
    assert Keyring({"a": SECRET, b"b": SECRET}, use="b").use == "b"


@pytest.mark.parametrize("key_id", ["x" * 16, "é" * 8, b"\xff" * 16, "2024-06-01", b"x"])
def test_an_id_fits_the_field_of_the_header(key_id):
    field = (key_id.encode() if isinstance(key_id, str) else key_id).ljust(16, b"\0")
    assert Keyring({key_id: SECRET}).find(field)[0] == key_id


@pytest.mark.parametrize(
    ("keys", "use", "text"),
    [
        ({}, None, "has at least one key"),
        ([("a", SECRET)], None, "has at least one key"),
        (SECRET, None, "has at least one key"),
        ({1: SECRET}, None, "a key id is text or bytes, not int"),
        ({"": SECRET}, None, "the key id '' is 0 bytes long; it has to be 1 to 16"),
        ({"x" * 17: SECRET}, None, "is 17 bytes long; it has to be 1 to 16"),
        ({"é" * 9: SECRET}, None, "is 18 bytes long"),
        ({"a\0b": SECRET}, None, r"the key id 'a\\x00b' has a NUL, which pads it on the wire; write it without"),
        ({"\ud800": SECRET}, None, "write it without surrogates"),
        ({"a": SECRET, b"a": SECRET}, "a", "the key b'a' is there twice"),
        ({"a": "s3cret-s3cret-s3cret"}, None, r"is bytes, not str; make one with secrets.token_bytes\(32\)"),
        ({"a": bytearray(SECRET)}, None, "is bytes, not bytearray"),
        ({"a": b"s3cret-s3cret-s"}, None, "has 15 bytes, and can be guessed; it needs 16: make one with"),
        ({"a": SECRET, "b": SECRET}, None, "use= must say which of the keys 'a', 'b' is used"),
        ({"a": SECRET}, "b", "use='b' is not in the Keyring; it has 'a'"),
        ({"a": SECRET}, 1, "a key id is text or bytes, not int"),
    ],
)
def test_a_bad_keyring_is_a_config_error_without_the_secret(keys, use, text):
    with pytest.raises(ConfigError, match=text) as info:
        Keyring(keys, use=use)
    assert "s3cret" not in str(info.value)


def test_neither_repr_nor_attributes_show_a_secret():
    secret = b"open sesame open"
    ring = Keyring({"a": secret, b"b": secret}, use="a")
    assert repr(ring) == "<Keyring of 'a', b'b', use='a'>"
    shown = repr([getattr(ring, name) for name in Keyring.__slots__])
    assert "sesame" not in shown


# the dialogue


def test_a_signed_dialogue_means_what_an_unsigned_one_does():
    both = Signing().until(None)
    assert list(both.packets) == NAMES
    assert both.client.error is both.server.error is None
    assert both.client.key_id == both.server.key_id == "2024"


def test_every_packet_has_the_key_id_and_a_signature_of_its_own():
    packets = Signing().until(None).packets.values()
    assert {packet[48:64] for packet in packets} == {b"2024".ljust(16, b"\0")}
    assert len({packet[64:96] for packet in packets}) == len(NAMES)


def test_a_server_answers_under_the_key_of_its_client():
    ring = Keyring({"old": SECRET, b"new": OTHER_SECRET}, use="old")
    both = Signing(ring)
    both.client = ClientSession(STAMP, signing=Keyring({"new": OTHER_SECRET}))
    both.until(None)
    assert both.packets["welcome"][48:64] == b"new".ljust(16, b"\0")
    assert both.server.key_id == b"new"
    assert both.client.key_id == "new"


def test_the_text_and_the_bytes_of_an_id_are_one_id():
    both = Signing(Keyring({b"2024": SECRET}))
    both.client = ClientSession(STAMP, signing=RING)
    both.until(None)
    assert both.server.key_id == b"2024"


def test_two_dialogues_have_no_signature_in_common():
    one, other = (Signing(nonces=(ClientSession(STAMP).nonce, ServerSession(STAMP).nonce)) for _ in range(2))
    one, other = one.until(None).packets, other.until(None).packets
    assert not {packet[64:96] for packet in one.values()} & {packet[64:96] for packet in other.values()}


@pytest.mark.parametrize("nonces", [(NONCE, NONCE), (SERVER_NONCE, SERVER_NONCE)], ids=["the server's", "the client's"])
def test_either_nonce_alone_changes_the_keys_of_the_session(nonces):
    one, other = Signing().until(None).packets, Signing(nonces=nonces).until(None).packets
    assert all(one[name] != other[name] for name in NAMES[2:])


def test_a_stranger_is_answered_without_a_signature():
    signer = Signer(RING, client=False)
    assert signer.stranger
    assert signer.sign(KEEPALIVE) == KEEPALIVE
    assert not Signer(RING, client=True).stranger


# who does not have the key


def met_by_server(packet, ring=RING):
    end = ServerSession(STAMP, signing=ring)
    assert end.receive(packet) == []
    assert isinstance(end.error, SignatureMismatch)
    return str(end.error)


def met_by_client(packet, ring=RING):
    end = ClientSession(STAMP, signing=ring)
    end.sign(end.hello())
    assert end.receive(packet) == []
    assert isinstance(end.error, SignatureMismatch)
    return str(end.error)


def signed_hello(ring):
    end = ClientSession(STAMP, signing=ring)
    return end.sign(end.hello())


def test_a_hello_under_an_unknown_key_is_refused():
    assert met_by_server(signed_hello(Keyring({"1999": SECRET}))) == (
        "the client's hello is signed with the key '1999', and this server's Keyring does not have it; "
        "give both ends a key in common"
    )


def test_an_id_that_is_no_text_cannot_spoil_a_log():
    assert r"the key '\\xff\n'" in met_by_server(signed_hello(Keyring({b"\xff\n": SECRET})))


def test_a_hello_with_another_secret_is_refused():
    assert met_by_server(signed_hello(Keyring({"2024": OTHER_SECRET}))) == (
        "the signature of the client's hello is wrong: it was changed on its way, or the two ends have different "
        "secrets for the key '2024'; give both the same"
    )


def test_a_hello_without_a_signature_is_refused():
    assert met_by_server(ClientSession(STAMP).hello()) == (
        "the client's hello is not signed; this server takes only what is signed with a key that it has: "
        "give both ends signing=Keyring(...)"
    )


def test_an_answer_without_a_signature_is_refused():
    assert met_by_client(ServerSession(STAMP)._stamp.frame(Type.ERROR, b"")) == (
        "the server's error is not signed: that server has no signing=, or not the key '2024' with the same secret, "
        "or needs another transport=; give both ends a key in common"
    )


def test_an_answer_under_another_key_is_refused():
    both = Signing(Keyring({"1999": SECRET})).until("proof")
    assert met_by_client(both.packets["server_hello"]) == (
        "the server's hello is signed with the key '1999', and this client uses '2024'; give both ends a key in common"
    )


def test_an_answer_to_another_hello_is_refused():
    both = Signing().until("proof")
    assert "the signature of the server's hello is wrong" in met_by_client(both.packets["server_hello"])


def test_a_packet_without_a_signature_in_the_middle_is_refused():
    both = Signing().until("push")
    assert both.client.receive(STAMP.frame(Type.PUSH, b"\x82\xf6\x01")) == []
    assert isinstance(both.client.error, SignatureMismatch)
    assert str(both.client.error) == (
        "the signature of the server's packet 4, a push, is wrong: it, or one before it, was changed, replayed, "
        "reordered or dropped on its way; look for what is between the two ends"
    )


# every bit


@pytest.mark.parametrize("name", NAMES)
def test_no_bit_of_a_packet_can_be_flipped(name):
    both = Signing(max_size=2000).until(name)
    role, _, make = SIGNED[NAMES.index(name)]
    one, end = both.ends(role)
    packet = one.sign(make(one))
    for bit in range(len(packet) * 8):
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        # What follows is for those that now declare a larger payload.
        assert end.receive(bytes(changed) + bytes(5000)) == []
        assert isinstance(end.error, (SignatureMismatch, BadPacket, PacketTooLarge))
        if bit >= 9 * 8:
            assert type(end.error) is SignatureMismatch
        # Nothing has been learnt from it, so that the next one can be tried on the same end.
        end.error, end.framer = None, Framer(end.framer.max_size, signed=True)
    assert len(take(end, packet)) == 1


@pytest.mark.parametrize("name", NAMES[1:])
def test_no_packet_can_be_taken_for_another(name):
    """Replayed, reflected, dropped before it, or moved: only the right one is taken, at its own place."""
    role = SIGNED[NAMES.index(name)][0]
    recorded = Signing().until(None).packets
    elsewhere = Signing(nonces=(SERVER_NONCE, NONCE)).until(None).packets
    for packet in (*elsewhere.values(), *(recorded[other] for other in NAMES if other != name)):
        _, end = Signing().until(name).ends(role)
        assert end.receive(packet) == []
        assert type(end.error) is SignatureMismatch


@pytest.mark.parametrize("who", [Role.CLIENT, Role.SERVER])
def test_a_recorded_dialogue_is_of_no_use(who):
    recorded = Signing().until(None).packets
    stream = b"".join(recorded[name] for role, name, _ in SIGNED if role is who)
    if who is Role.CLIENT:
        end = ServerSession(STAMP, signing=RING)
        assert [packet.type for packet in end.receive(recorded["hello"])] == [Type.HELLO]
        end.sign(end.hello())
        stream = stream[len(recorded["hello"]) :]
    else:
        end = ClientSession(STAMP, signing=RING)
        end.sign(end.hello())
    assert end.receive(stream) == []
    assert type(end.error) is SignatureMismatch


@pytest.mark.parametrize("name", ["keepalive", "echo"])
def test_a_keepalive_of_nine_bytes_is_refused(name):
    both = Signing().until(name)
    _, end = both.ends(SIGNED[NAMES.index(name)][0])
    packet = both.until(None).packets[name]
    assert len(packet) == 96
    fresh = Signing().until(name).ends(SIGNED[NAMES.index(name)][0])[1]
    assert fresh.receive(KEEPALIVE + packet) == []
    assert type(fresh.error) is SignatureMismatch
    assert end.error is None


def test_a_signature_is_judged_before_anything_is_inflated_or_decoded(monkeypatch):
    both = Signing(compressed=True).until("cast")
    packet = bytearray(both.client.sign(both.client.cast(b"x" * 1000)))
    packet[-1] ^= 1

    def used(*_):
        raise AssertionError("it was looked at")

    monkeypatch.setattr("erps_gevent.wire.dialogue.zlib.decompressobj", used)
    monkeypatch.setattr("erps_gevent.wire.terms.decode", used)
    assert both.server.receive(bytes(packet)) == []
    assert type(both.server.error) is SignatureMismatch


def test_a_deflated_payload_is_signed_as_it_is_sent():
    both = Signing(compressed=True).until("cast")
    packet = both.client.sign(both.client.cast(b"x" * 1000))
    assert len(packet) < 1000
    assert both.server.receive(packet)[0].value == b"x" * 1000


# whatever the wire does


def recorded(salt):
    """What a client says after its welcome in one dialogue, and the server that is to hear it."""
    both = Signing(nonces=(bytes([salt]) * 16, SERVER_NONCE), max_size=3000).until("call")
    said = [both.client.sign(both.client.cast(number)) for number in range(6)]
    back = [both.server.sign(both.server.push(number)) for number in range(3)]
    return both.server, said, back


PIECES = st.one_of(
    st.tuples(st.just("said"), st.integers(0, 5)),
    st.tuples(st.just("back"), st.integers(0, 2)),
    st.tuples(st.just("elsewhere"), st.integers(0, 5)),
    st.tuples(st.just("bytes"), st.binary(max_size=120)),
    st.tuples(st.just("cut"), st.integers(0, 5), st.integers(1, 100)),
    st.tuples(st.just("flip"), st.integers(0, 5), st.integers(0, 800)),
)


def piece(of, said, back, elsewhere):
    match of:
        case ("said", int(number)):
            return said[number]
        case ("back", int(number)):
            return back[number]
        case ("elsewhere", int(number)):
            return elsewhere[number]
        case ("cut", int(number), int(size)):
            return said[number][:-size]
        case ("flip", int(number), int(bit)):
            changed = bytearray(said[number])
            changed[bit // 8 % len(changed)] ^= 1 << bit % 8
            return bytes(changed)
    return of[1]


@settings(max_examples=300)
@given(kept=st.integers(0, 6), pieces=st.lists(PIECES, max_size=6), cuts=st.lists(st.integers(0, 2000), max_size=5))
def test_whatever_the_wire_does_only_what_was_said_is_heard(kept, pieces, cuts):
    server, said, back = recorded(1)
    elsewhere = recorded(2)[1]
    whole = b"".join(said)
    stream = b"".join(said[:kept]) + b"".join(piece(of, said, back, elsewhere) for of in pieces)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    heard = [p for start, end in itertools.pairwise(edges) for p in server.receive(stream[start:end])]
    # The calls and casts are 0, 1, 2 ..., as they were said, up to the first byte that differs.
    assert [packet.value for packet in heard] == list(range(len(heard)))
    assert whole.startswith(b"".join(said[: len(heard)]))
    same = next(
        (n for n, (a, b) in enumerate(zip(stream, whole, strict=False)) if a != b), min(len(stream), len(whole))
    )
    assert len(b"".join(said[: len(heard)])) <= same
    if not whole.startswith(stream):
        server.receive(bytes(4000))
        assert isinstance(server.error, (SignatureMismatch, BadPacket, PacketTooLarge))
    else:
        assert server.error is None


def test_a_lost_tail_is_only_seen_inside_a_packet():
    server, said, _ = recorded(1)
    assert len(server.receive(b"".join(said[:3]))) == 3
    assert server.eof() is None
    server, said, _ = recorded(1)
    server.receive(said[0] + said[1][:50])
    assert isinstance(server.eof(), BadPacket)


@given(data=st.binary(max_size=300))
def test_garbage_before_a_hello_is_one_named_error(data):
    end = ServerSession(STAMP, signing=RING)
    assert end.receive(data) == []
    assert end.error is None or isinstance(end.error, ProtocolError)


def test_the_framer_waits_for_the_whole_header_of_a_keepalive():
    framer = Framer(1000, signed=True)
    packet = STAMP.keepalive()
    assert framer.feed(packet[:9]) == []
    assert framer.feed(packet[9:95]) == []
    [frame] = framer.feed(packet[95:])
    assert (frame.type, frame.payload, frame.identifier) == (Type.KEEPALIVE, b"", b"counter")
