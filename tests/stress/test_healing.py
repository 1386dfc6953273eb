"""The daemon is killed, replaced and drained under load."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import Any

import gevent
from conftest import DaemonProcess, Footprint, times
from faces import until

import erps_gevent as erps
from erps_gevent.transport.sockets import listen

TIMEOUT = 2.0


def test_every_call_ends_in_time_and_the_client_is_back_while_the_daemon_is_killed(target: DaemonProcess) -> None:
    outcomes: Counter[str] = Counter()
    longest = 0.0

    def call_on(caller: int) -> None:
        nonlocal longest
        number = 0
        while not done:
            start = monotonic()
            try:
                assert client.call(("echo", (caller, number)), timeout=TIMEOUT) == (caller, number)
                outcomes["answered"] += 1
            except erps.ErpsError as error:
                outcomes[type(error).__name__] += 1
                gevent.sleep(0.005)
            longest = max(longest, monotonic() - start)
            number += 1

    with target.client() as client:
        done: list[bool] = []
        client.wait_connected()
        callers = [gevent.spawn(call_on, caller) for caller in range(20)]
        back = []
        before = None
        for round_ in range(times(5, 20)):
            gevent.sleep(0.2)
            target.kill()
            gevent.sleep(0.05)
            target.start()
            start = monotonic()
            client.wait_connected(timeout=10)
            back.append(monotonic() - start)
            if round_ == 1:
                before = Footprint()
        after = Footprint()
        done.append(True)
        gevent.joinall(callers, raise_error=True)
        assert client.call(("echo", "after")) == "after"
    print(f"back after {min(back):.3f} to {max(back):.3f} s; longest call {longest:.3f} s; {dict(outcomes)}")
    assert max(back) < 1.0
    assert longest < TIMEOUT * 1.5
    assert set(outcomes) <= {"answered", "Disconnected", "CallTimeout"}
    assert before is not None
    assert after.greenlets <= before.greenlets + 2
    assert after.descriptors <= before.descriptors + 2


def test_a_move_under_load_executes_each_token_once_and_fails_no_call(transports: tuple[Any, Any]) -> None:
    executed: Counter[object] = Counter()

    class Ledger(erps.Server):
        def handle_call(self, token, from_):
            executed[token] += 1
            if token[1] % 7 == 0:
                return self.defer(from_, lambda: gevent.sleep(0.01) or token)
            return erps.Reply(token)

    server_transport, client_transport = transports
    listener = listen(("127.0.0.1", 0))
    address = listener.getsockname()
    first = erps.Daemon(listener.dup(), Ledger, transport=server_transport)
    first.start()
    clients = [erps.Client(address, transport=client_transport, hub="here") for _ in range(4)]
    done: list[bool] = []
    made: Counter[int] = Counter()

    def call_on(caller: int) -> None:
        client = clients[caller % len(clients)]
        while not done:
            token = (caller, made[caller])
            assert client.call(token, timeout=10) == token
            made[caller] += 1

    for client in clients:
        client.wait_connected()
    callers = [gevent.spawn(call_on, caller) for caller in range(20)]
    moves = times(10, 50)
    daemon = first
    for _ in range(moves):
        # Each has moved, and is called through its new line.
        until(lambda running=daemon: len(running.servers) == len(clients))
        gevent.sleep(0.03)
        # As a rolling restart does it: the successor is listening on the same socket before the old one stops.
        successor = erps.Daemon(listener.dup(), Ledger, transport=server_transport)
        successor.start()
        start = monotonic()
        daemon.stop(timeout=5)
        assert monotonic() - start < 4, "the old daemon waited for its deadline instead of for its clients"
        daemon = successor
    done.append(True)
    gevent.joinall(callers, raise_error=True)
    for client in clients:
        assert (client.stats["moves"], client.stats["lost"]) == (moves, 0)
        client.close()
    daemon.stop()
    listener.close()
    assert sum(made.values()) == len(executed)
    assert set(executed.values()) == {1}
    print(f"{len(executed)} calls over {moves} moves: none failed, none executed twice")
