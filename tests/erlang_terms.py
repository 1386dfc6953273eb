"""What the tests of the etf dialect share: recorded terms and what they are in Python, and terms to draw from."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from erps_gevent.wire.etf_types import Atom, Bitstring, ImproperList

VECTORS = Path(__file__).parent / "wire" / "vectors"

# By the names in vectors/terms.json.
PYTHON: dict[str, Any] = {
    "atom": Atom("ping"),
    "atom true": True,
    "nil": None,
    "small int": 7,
    "int32": 123456789,
    "negative": -42,
    "bignum 2^80": 2**80,
    "negative bignum": -(2**80),
    "float": 1.5,
    "binary": "hello",
    "utf8 binary": "grüße ✓",
    "empty binary": "",
    "raw bytes": b"\x00\xff\x83",
    "empty list": [],
    "charlist (STRING_EXT)": [1, 2, 3],
    "list": [Atom("a"), "b", 3],
    "improper list": ImproperList((1,), 2),
    "empty tuple": (),
    "tuple": (Atom("add"), 1, 2),
    "nested": (Atom("echo"), [1, 2, 3], {"x": "hello world"}),
    "map": {
        Atom("daycare"): "duped",
        Atom("loadpay"): "fooled",
        Atom("payday"): "failed",
        Atom("payload"): "payload",
    },
    "empty map": {},
    "keyword": [(Atom("a"), 1), (Atom("b"), 2)],
    "bitstring": Bitstring(b"\xa0", 3),
    "large tuple": tuple(range(1, 301)),
    "unicode atom": Atom("héllo"),
    "10 KiB binary": "\0" * 10240,
}


def recorded(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def alike(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down; 0.0 is not like -0.0, and an atom not like a text."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return alike(list(one), list(other)) and alike(list(one.values()), list(other.values()))
    if isinstance(one, ImproperList):
        return alike(one.items, other.items) and alike(one.tail, other.tail)
    return bool(one == other)


def _text_or_bytes(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _is_word(name: str) -> bool:
    return name in ("nil", "true", "false")


# deferred: its repr is short, and Hypothesis warns of a long one.
leaves = st.deferred(lambda: _leaves)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.tuples(st.integers(), st.integers(0, 3000)).map(lambda drawn: drawn[0] << drawn[1]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.binary().map(_text_or_bytes),
    st.text(max_size=255).filter(lambda name: not _is_word(name)).map(Atom),
    st.tuples(st.binary(max_size=9), st.integers(1, 7), st.integers(0, 127)).map(
        lambda drawn: Bitstring(drawn[0] + bytes(((drawn[2] << (8 - drawn[1])) & 0xFF,)), drawn[1])
    ),
)
keys = st.deferred(lambda: _keys)
_keys = st.recursive(
    leaves.filter(lambda value: not isinstance(value, float) or not math.isclose(value, round(value))),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


def _told_apart(drawn: dict[Any, Any]) -> bool:
    """No two keys are one to Erlang; Python has told those apart that are one to it."""
    texts = [repr(key.encode() if isinstance(key, str) and not isinstance(key, Atom) else key) for key in drawn]
    return len(set(texts)) == len(drawn)


terms = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4).filter(_told_apart),
        st.tuples(st.lists(inner, min_size=1, max_size=3).map(tuple), keys).map(lambda drawn: ImproperList(*drawn)),
    ),
    max_leaves=12,
)
