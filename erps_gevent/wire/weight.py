"""How much a payload becomes, found out before cbor2 makes it.

What is short on the wire may be large in memory, and slow: 16 MiB of empty lists, which deflate to 16 KiB, would take a
gigabyte and eleven seconds; of IPv6 interfaces, 45 seconds. So every item has a weight, roughly by the time that
making it takes, and a payload may weigh MAX_WEIGHT: a second or two and 200 MiB, whatever it is made of.
"""

from __future__ import annotations

from erps_gevent.wire.types import DICT, IP_TAGS

MAX_WEIGHT = 4_000_000  # four million numbers, two million texts, one million lists, 300,000 sets, 48,000 addresses
_OF_THE_PACKET = 64  # around a value: the packet's array, ref and meta

_BY_MAJOR = (1, 1, 2, 2, 4, 4, 8, 1)  # number, negative number, bytes, text, array, map, tag, simple or float
_BY_TAG = {DICT: 24, **dict.fromkeys(IP_TAGS, 80)}
_HEAVIEST = 14  # of one byte of a payload: an address takes six

_ARRAYS_AND_MAPS = bytes(range(0x80, 0xC0))
_TAGS = bytes(range(0xC0, 0xE0))
_LONG_TAG = b"\xd9"  # the first byte of a tag of ours that weighs more than others


def too_heavy(payload: bytes | memoryview, packet: bool = False) -> bool:
    """Whether `payload`, which is CBOR, weighs more than MAX_WEIGHT.

    packet: it is what a packet carries, and not one value.
    """
    most = MAX_WEIGHT + (_OF_THE_PACKET if packet else 0)
    # Two looks that cost nothing beside decoding; few payloads need the third.
    if len(payload) * _HEAVIEST <= most:
        return False
    data = bytes(payload)
    return _at_most(data) > most and _exceeds(data, most)


def _at_most(data: bytes) -> int:
    """What `data` would weigh if each of its bytes were the first one of an item."""
    arrays = len(data) - len(data.translate(None, _ARRAYS_AND_MAPS))
    tags = len(data) - len(data.translate(None, _TAGS))
    return 2 * (len(data) - arrays - tags) + 4 * arrays + 8 * tags + 72 * data.count(_LONG_TAG)


def _exceeds(data: bytes, most: int) -> bool:
    """Go from head to head; False at what cbor2 will refuse, because it makes nothing of what follows."""
    at, weight = 0, 0
    while at < len(data):
        major, argument = data[at] >> 5, data[at] & 0x1F
        at += 1
        if argument >= 24:
            if argument > 27:
                return False
            width = 1 << (argument - 24)
            argument = int.from_bytes(data[at : at + width], "big")
            at += width
        weight += _BY_MAJOR[major] if major != 6 else _BY_TAG.get(argument, 8)
        if weight > most:
            return True
        if major in (2, 3):
            at += argument
    return False
