"""Many callers on one line, some of them ended at random, and no reply wrong, lost or crossed."""

from __future__ import annotations

import random
import signal
from collections import Counter
from time import monotonic

import gevent
from conftest import DaemonProcess, times

import erps_gevent as erps

CALLERS = 100


def test_a_hundred_callers_share_a_client_while_others_are_timed_out_and_killed(target: DaemonProcess) -> None:
    calls_each = times(100, 1000)
    results: Counter[str] = Counter()

    def call_on(caller: int) -> None:
        for number in range(calls_each):
            token = (caller, number)
            assert client.call(("echo", token), timeout=30) == token
            results["right"] += 1

    def be_unlucky(seed: int) -> None:
        luck = random.Random(seed)
        while not done:
            seconds = luck.random() * 0.02
            try:
                match luck.randrange(3):
                    case 0:
                        client.call(("later", 0.01, "x"), timeout=seconds)
                    case 1:
                        with gevent.Timeout(seconds):
                            client.call(("later", 0.01, "x"))
                    case 2:
                        victim = gevent.spawn(client.call, ("later", 0.01, "x"))
                        gevent.sleep(seconds)
                        victim.kill()
                results["answered"] += 1
            except erps.CallTimeout:
                results["timed out"] += 1
            except gevent.Timeout:
                results["gevent.Timeout"] += 1

    with target.client() as client:
        done: list[bool] = []
        unlucky = [gevent.spawn(be_unlucky, seed) for seed in range(20)]
        callers = [gevent.spawn(call_on, caller) for caller in range(CALLERS)]
        gevent.joinall(callers, raise_error=True)
        done.append(True)
        gevent.joinall(unlucky, raise_error=True)
        assert results["right"] == CALLERS * calls_each
        assert results["timed out"] > 0 < results["gevent.Timeout"]
        assert client.call(("echo", "after")) == "after"
        assert client.stats["pending"] == 0
        assert client.stats["lost"] == 0
    print(dict(results))


def test_a_caller_killed_while_it_sends_sixteen_mebibytes_disturbs_no_neighbour(target: DaemonProcess) -> None:
    def call_on(caller: int) -> int:
        count = 0
        while not done:
            assert client.call(("echo", (caller, count)), timeout=30) == (caller, count)
            count += 1
        return count

    with target.client() as client:
        done: list[bool] = []
        client.wait_connected()
        neighbours = [gevent.spawn(call_on, caller) for caller in range(99)]
        for round_ in range(times(5, 30)):
            # Just under max_size with its envelope.
            victim = gevent.spawn(client.call, ("size", bytes(16 * 1024 * 1024 - 100)), timeout=30)
            gevent.sleep(random.random() * 0.03)
            victim.kill()
            assert client.call(("echo", round_), timeout=30) == round_
        done.append(True)
        gevent.joinall(neighbours, raise_error=True)
        assert client.stats["lost"] == 0
        assert client.stats["connects"] == 1


def test_a_parked_handler_leaves_its_line_and_all_others_alive(target: DaemonProcess) -> None:
    seconds = times(4, 60)
    # A client that gives up soon if nobody answers its keepalives, so that the test need not take a minute.
    with target.client(keepalive=0.3, dead_after=2.0) as parked, target.client() as other:
        sleeper = gevent.spawn(parked.call, ("sleep", seconds), timeout=seconds + 10)
        given_up = gevent.spawn(parked.call, ("execute", "unwanted"), timeout=0.5)
        start = monotonic()
        served = 0
        while not sleeper.ready():
            assert other.call(("echo", served)) == served
            served += 1
            gevent.sleep(0.01)
        assert sleeper.get() == "slept"
        assert monotonic() - start >= seconds
        assert isinstance(given_up.exception, erps.CallTimeout)
        assert parked.stats["lost"] == 0
        assert other.call("executed") == 0, "the call that was cancelled while it waited was executed"


def test_a_peer_that_reads_nothing_for_seconds_is_busy_and_not_dead(target: DaemonProcess) -> None:
    with target.client() as client:
        client.wait_connected()
        target.send(signal.SIGSTOP)
        # More than the kernels hold, so that data waits unread all the time.
        large = gevent.spawn(client.call, ("size", bytes(12 * 1024 * 1024)), timeout=30)
        gevent.sleep(5)
        target.send(signal.SIGCONT)
        assert large.get() == 12 * 1024 * 1024
        assert client.stats["lost"] == 0
