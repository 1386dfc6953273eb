"""docs/protocol.md says what the code does: its bytes, its tables of packets, states, codes and tags."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from dialogues import GOLDEN, SIGNED, Signing, golden
from support import ROOT

import erps_gevent
from erps_gevent.options import CLIENT
from erps_gevent.outbox import HIGH_WATER
from erps_gevent.pacing import FRAME_SIZE, UNANSWERED
from erps_gevent.wire import etf, etf_types, types
from erps_gevent.wire.dialogue import SENDS, TAKES, Role, State
from erps_gevent.wire.etf_session import EtfClientSession, EtfServerSession
from erps_gevent.wire.etf_types import Atom
from erps_gevent.wire.packet import Stamp, Type
from erps_gevent.wire.refusals import Code, Refusal, error_of, fits
from erps_gevent.wire.safe import SAFE

TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```hex (\w+)\n(.*?)```", TEXT, re.DOTALL))
SIGNED_BLOCKS = dict(re.findall(r"```signed (\w+)\n(.*?)```", TEXT, re.DOTALL))
ETF_BLOCKS = dict(re.findall(r"```etf (\w+)\n(.*?)```", TEXT, re.DOTALL))


def table(heading):
    """The rows, without its head, of the first table whose head begins with `heading`."""
    rows = TEXT[TEXT.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def in_bytes(name, blocks=BLOCKS):
    text = re.sub(r"#.*", "", blocks[name])
    return b"".join(in_bytes("header", blocks) if word == "…" else bytes.fromhex(word) for word in text.split())


def test_there_is_an_example_of_each_packet():
    assert BLOCKS.keys() == {"header", *GOLDEN} == {"header", *(kind.name.lower() for kind in Type)}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_an_example_are_those_of_the_code(name):
    assert in_bytes(name).hex() == golden()[name].hex()


def test_the_packets_are_those_of_the_code():
    packets = table("| type | name |")
    assert {int(row[0]): row[1] for row in packets} == {kind: kind.name.lower() for kind in Type}
    stamp = Stamp((0, 0, 0), "")
    for row in packets:
        if row[4] == "yes":
            assert stamp.frame(int(row[0]) | 0x80, b"")
        else:
            with pytest.raises(KeyError):
                stamp.frame(int(row[0]) | 0x80, b"")


def moves(which, role, state, columns, row):
    """The row of the document as the code has it."""
    for names, after in zip(columns, row, strict=True):
        for name in re.split(r", ", names):
            kind = Type[name.split()[0].upper()]
            found = which[role, state].get(kind)
            if name == "error without":
                found = found and State.CLOSED
            elif name == "error with a ref" and state in (State.FRESH, State.GREETING):
                found = None  # No call was made that it could answer.
            yield name, after, "-" if found is None else found.name


@pytest.mark.parametrize(
    ("which", "role", "at", "heading"),
    [
        (SENDS, Role.CLIENT, "What the client sends", "| | hello"),
        (TAKES, Role.SERVER, "What the server sends", "| | welcome"),
    ],
)
def test_the_states_are_those_of_the_code(which, role, at, heading):
    start = TEXT.index(heading, TEXT.index(at))
    head, _, *rows = (line.strip("|").split("|") for line in TEXT[start:].split("\n\n")[0].splitlines())
    columns = [cell.strip() for cell in head[1:]]
    assert [row[0].strip() for row in rows] == [state.name for state in State]
    for row in rows:
        state = State[row[0].strip()]
        for name, said, found in moves(which, role, state, columns, [cell.strip() for cell in row[1:]]):
            assert (state, name, said) == (state, name, found)


def test_a_server_that_has_said_goaway_takes_what_the_document_says():
    assert {Type(kind).name: state.name for kind, state in TAKES[Role.CLIENT, State.LEAVING].items()} == {
        "CALL": "LEAVING",
        "CAST": "LEAVING",
        "KEEPALIVE": "LEAVING",
        "CANCEL": "LEAVING",
        "BYE": "CLOSED",
    }


def test_the_codes_are_those_of_the_code():
    rows = table("| code | name |")
    assert {int(row[0]): row[1] for row in rows} == {int(code): code.name for code in Code}
    for code, _, with_ref, without, becomes in rows:
        assert (fits(int(code), 1), fits(int(code), None)) == (with_ref == "yes", without == "yes")
        error = error_of(Refusal(int(code), "kind", "message"))
        assert re.match(r"`(\w+)", becomes).group(1) == type(error).__name__


def test_the_tags_are_those_of_the_code():
    listed = {int(tag) for row in table("| tag | Python |") for tag in row[0].split(",")}
    assert listed - {2, 3} == {*types.UNPACK, types.TUPLE, types.SET, types.FROZENSET, types.DICT, types.APPLICATION}
    assert listed - {2, 3} <= SAFE.keys()


# Signing, made once more from what the document says, with nothing of the code.

KEYS = re.findall(r"([0-9a-f]{64})  # (.*)", SIGNED_BLOCKS["keys"])
EXAMPLES = [name for name in SIGNED_BLOCKS if name not in ("keys", "header")]


def expanded(extracted, label, *hellos):
    info = label.encode()
    if hellos:
        info += hashlib.sha256(b"".join(hellos)).digest()
    return hmac.digest(extracted, info + b"\x01", "sha256")


def test_the_keys_of_the_signed_example_are_those_that_the_document_describes():
    secret = bytes(range(32))
    extracted = hmac.digest(b"erps_gevent signing 1", secret, "sha256")
    hellos = in_bytes("hello", SIGNED_BLOCKS), in_bytes("server_hello", SIGNED_BLOCKS)
    assert {label: bytes.fromhex(key) for key, label in KEYS} == {
        "extracted": extracted,
        "client hello": expanded(extracted, "client hello"),
        "server hello": expanded(extracted, "server hello", hellos[0]),
        "session": expanded(extracted, "session", *hellos),
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_signature_is_made_as_the_document_describes(name):
    packet = in_bytes(name, SIGNED_BLOCKS)
    direction, number = re.search(r"# (client|server) (\d+)", SIGNED_BLOCKS[name]).groups()
    label = {"hello": "client hello", "server_hello": "server hello"}.get(name, "session")
    key = bytes.fromhex(next(key for key, of in KEYS if of == label))
    said = b"".join(
        ({"client": b"C", "server": b"S"}[direction], int(number).to_bytes(8, "big"), packet[:64], packet[96:])
    )
    assert packet[64:96] == hmac.digest(key, said, "sha256")


def test_the_bytes_of_the_signed_example_are_those_of_the_code():
    packets = Signing().until(None).packets
    assert [name for _, name, _ in SIGNED][: len(EXAMPLES)] == EXAMPLES
    assert {name: in_bytes(name, SIGNED_BLOCKS).hex() for name in EXAMPLES} == {
        name: packets[name].hex() for name in EXAMPLES
    }


def test_the_order_of_the_first_signed_packets_is_that_of_the_code():
    rows = table("| number | client | server |")
    said = [(row[1] or row[2]).partition(":")[0].partition(",")[0] for row in rows]
    packets = Signing().until(None).packets
    assert said == [Type(packets[name][8]).name.lower() for _, name, _ in SIGNED[: len(said)]]
    assert [int(row[0]) for row in rows] == [0, 0, 1, 1]


# The dialect etf.


def etf_golden():
    client, server = EtfClientSession(Stamp((1, 0, 3), "counter")), EtfServerSession(Stamp((0, 0, 0), "counter"))
    return {
        "call": client.call((Atom("add"), 3), None)[1],
        "reply": server.reply(1, 42),
        "error_about_a_call": server.refusal(1, Refusal(Code.REPLY, "no_stock", "none is left")),
        "cast": client.cast("reset"),
        "push": server.push((Atom("changed"), 42)),
        "keepalive": client.keepalive(),
        "error_about_the_line": server.refusal(None, Refusal(Code.IDENTIFIER, "", "")),
    }


def etf_bytes(name):
    parts = {"…": in_bytes("header"), "0…": bytes(87)}
    words = re.sub(r"#.*", "", ETF_BLOCKS[name]).split()
    return b"".join(parts[word] if word in parts else bytes.fromhex(word) for word in words)


def test_there_is_an_example_of_each_packet_of_etf():
    assert ETF_BLOCKS.keys() == etf_golden().keys()


@pytest.mark.parametrize("name", ETF_BLOCKS)
def test_the_bytes_of_an_example_of_etf_are_those_of_the_code(name):
    assert etf_bytes(name).hex() == etf_golden()[name].hex()


def test_the_packets_of_etf_are_those_of_the_code():
    listed = {row[0]: row[1] for row in table("| packet | who sends it |")}
    for end, who in ((Role.CLIENT, "client"), (Role.SERVER, "server")):
        sends = {Type(kind).name.lower() for kind in EtfClientSession.sends[end, State.OPEN]}
        assert sends - {"keepalive"} == {name for name, by in listed.items() if by == who} - {"keepalive"}
    assert listed["keepalive"] == "client"


def test_the_limits_of_etf_are_those_of_the_code():
    limits = {row[0]: row[1] for row in table("| what | limit | over it |")}
    assert {
        name: int(re.sub(r"[^0-9].*", "", text.replace(",", ""))) for name, text in limits.items() if text[0].isdigit()
    } == {
        "tuples, lists, maps inside each other": etf_types.MAX_DEPTH,
        "characters of an atom": etf_types.ATOM_SIZE,
        "different atoms on one line": etf_types.MAX_ATOMS,
        "terms in one payload": etf_types.MAX_TERMS,
        "bytes of an integer": etf_types.INTEGER_SIZE,
        "keys of a map with one hash": 32,
    }


def test_the_pacing_is_that_of_the_code():
    assert f"{UNANSWERED} \N{MULTIPLICATION SIGN} `pacing`" in TEXT
    assert f"{CLIENT['pacing'].default} s if it is not given" in TEXT
    assert f"callbacks take up to {UNANSWERED * CLIENT['pacing'].default:g} s for a call" in TEXT
    assert f"at least {FRAME_SIZE // 1024} KiB of the {HIGH_WATER >> 20} MiB" in TEXT
    assert f"when {HIGH_WATER // FRAME_SIZE} wait" in TEXT


VALUES = {
    "`nil`, `true`, `false`": [None, True, False],
    "any other atom": [erps_gevent.Atom("ok")],
    "integer, float": [2**70, 1.5],
    "binary that is UTF-8 (a string of Elixir's)": ["text"],
    "any other binary": [b"\xff"],
    "bits that are no whole bytes: `<<5::3>>`": [erps_gevent.Bitstring(b"\xa0", 3)],
    "tuple": [(1,)],
    "list, keyword list, charlist": [[104, 105]],
    "improper list: `[1 \\| 2]`": [erps_gevent.ImproperList((1,), 2)],
    "map, struct": [{1: 2}],
    "pid, port, reference, function": [erps_gevent.OpaqueTerm("function", b"qw\1aw\1ba\1")],
    "list, map in the key of a map": [{erps_gevent.OpaqueTerm("list", b"k\0\1\1"): 1}],
}


def test_the_values_of_erlang_are_those_of_the_code():
    rows = re.findall(r"^\| (.*?) \| ", TEXT[TEXT.index("| Erlang, Elixir |") :].split("\n\n")[0], re.MULTILINE)[2:]
    assert rows == list(VALUES)
    for values in VALUES.values():
        for value in values:
            found = etf.decode(etf.encode(value))
            assert (found, type(found)) == (value, type(value))
