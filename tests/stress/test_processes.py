"""Very many processes at once, and very many messages from one to the next."""

from __future__ import annotations

import os
import subprocess
import sys

import gevent
from conftest import Footprint, times
from support import child_environ

import erps_gevent as erps

KIBIBYTE = 1024

CROWD = """if True:
    import gevent, os, sys
    import erps_gevent as erps

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def double():
        sender, number = erps.receive()
        erps.send(sender, number * 2)

    count, me, before = int(sys.argv[1]), erps.current(), resident()
    pids = [erps.spawn(double) for _ in range(count)]
    while any(erps.info(pid)["status"] != "waiting" for pid in pids):
        gevent.sleep(0)
    print((resident() - before) // count)
    for number, pid in enumerate(pids):
        erps.send(pid, (me, number))
    assert sorted(erps.receive() for _ in pids) == list(range(0, 2 * count, 2))
    while any(pid.is_alive() for pid in pids):
        gevent.sleep(0)
"""


def test_a_hundred_thousand_processes_wait_at_once_and_each_answers() -> None:
    """In a Python process of its own, whose memory nothing else has grown before."""
    count = times(20_000, 100_000)
    command = [sys.executable, "-c", CROWD, str(count)]
    child = subprocess.run(command, env=child_environ(), capture_output=True, text=True, check=False, timeout=600)
    assert child.returncode == 0, child.stderr
    each = int(child.stdout)
    print(f"{count:,} processes: {each:,} bytes each")
    # Measured: 11 KiB, of which bare gevent has 10.5.
    assert each < 33 * KIBIBYTE


def test_messages_go_through_a_long_chain_in_order_and_leave_nothing_behind() -> None:
    def forward(to: erps.Pid) -> None:
        while True:
            erps.send(to, erps.receive())

    length, count = 1_000, times(100, 1_000)
    before = Footprint()
    me = first = erps.current()
    pids = []
    for _ in range(length):
        first = erps.spawn(forward, first)
        pids.append(first)
    for number in range(count):
        erps.send(first, number)
    assert [erps.receive() for _ in range(count)] == list(range(count))
    for pid in pids:
        erps.kill(pid)
    while any(pid.is_alive() for pid in pids):
        gevent.sleep(0)
    del first, pids, pid
    after = Footprint()
    assert erps.info(me) is not None
    assert after.greenlets <= before.greenlets
    assert len(os.listdir("/proc/self/fd")) <= before.descriptors
