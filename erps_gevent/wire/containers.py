"""How many containers a payload holds, found out before cbor2 makes them.

An empty list is one byte on the wire and 72 in memory: 16 MiB of them, which deflate to 16 KiB, would take a gigabyte
and eleven seconds. Nothing else that is short becomes as large.
"""

from __future__ import annotations

MAX_CONTAINERS = 1_000_000  # lists, dicts, and what travels as one of them: tuples and sets
_OF_THE_PACKET = 8  # around a value: the packet's array, its meta

_HEADS = bytes(range(0x80, 0xC0))  # the first bytes of arrays and maps; bytes of text and of numbers, too


def too_many(payload: bytes | memoryview, packet: bool = False) -> bool:
    """Whether `payload`, which is CBOR, holds more than MAX_CONTAINERS.

    packet: it is what a packet carries, and not one value.
    """
    most = MAX_CONTAINERS + (_OF_THE_PACKET if packet else 0)
    # Two looks that cost nothing beside decoding; few payloads need the third.
    if len(payload) <= most:
        return False
    data = bytes(payload)
    return len(data) - len(data.translate(None, _HEADS)) > most and _exceeds(data, most)


def _exceeds(data: bytes, most: int) -> bool:
    """Go from head to head; False at what cbor2 will refuse, because it makes nothing of what follows."""
    at, count = 0, 0
    while at < len(data):
        major, argument = data[at] >> 5, data[at] & 0x1F
        at += 1
        if argument >= 24:
            if argument > 27:
                return False
            width = 1 << (argument - 24)
            argument = int.from_bytes(data[at : at + width], "big")
            at += width
        if major in (2, 3):
            at += argument
        elif major in (4, 5):
            count += 1
            if count > most:
                return True
    return False
