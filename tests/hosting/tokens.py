"""A server that writes down every token it is called with, and clients in processes of their own that never pause.

As a program it is one client:

    python tokens.py PORT CERTS

It calls until it is told to stop by SIGTERM, and then says in one line of JSON what it has done.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

import gevent

import erps_gevent as erps

PATIENCE = 30.0  # seconds for one call: what is shown is that none fails, not that this machine is quick
CALLERS = 2  # greenlets of one client that call at once


class Tokens(erps.Server, identifier="tokens"):
    """Its answer is its process id, and the token is one more line in the file of that process."""

    def init(self) -> None:
        self.file = os.open(f"executed-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def handle_call(self, request, from_):
        match request:
            case ("block", float(seconds)):
                until = monotonic() + seconds
                while monotonic() < until:
                    sum(range(1000))
        os.write(self.file, f"{request}\n".encode())
        return erps.Reply(os.getpid())

    def terminate(self, reason):
        os.close(self.file)


def executed(directory: Path) -> Counter[str]:
    """How often each token was executed, in all worker processes that ran in `directory`."""
    return Counter(token for path in directory.glob("executed-*") for token in path.read_text().split())


class Load:
    """What one client process has done."""

    def __init__(self, client: erps.Client) -> None:
        self.client = client
        self.going = True
        self.made = 0
        self.failed: list[str] = []
        self.longest = 0.0
        self.pids: set[int] = set()

    def call(self, caller: int) -> None:
        number = 0
        while self.going:
            began = monotonic()
            number += 1
            try:
                self.pids.add(self.client.call(f"{os.getpid()}-{caller}-{number}", timeout=PATIENCE))
            except erps.ErpsError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                gevent.sleep(0.1)
            self.made += 1
            self.longest = max(self.longest, monotonic() - began)

    def stop(self) -> None:
        self.going = False


def main(port: str, certs: str) -> None:
    tls = erps.Tls(ca=f"{certs}/ca.pem", cert=f"{certs}/alice.pem", key=f"{certs}/alice.key")
    with erps.Client(("localhost", int(port)), identifier="tokens", transport=tls, hub="here") as client:
        load = Load(client)
        gevent.signal_handler(signal.SIGTERM, load.stop)
        callers = [gevent.spawn(load.call, caller) for caller in range(CALLERS)]
        client.wait_connected(timeout=PATIENCE)
        print("calling", flush=True)
        gevent.joinall(callers, raise_error=True)
        moves = client.stats["moves"]
        done = {"made": load.made, "failed": load.failed, "longest": round(load.longest, 2), "moves": moves}
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
