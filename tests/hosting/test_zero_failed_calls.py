"""gunicorn with ErpsWorker under load: reloads, restarts and signals, and not one failed or repeated call.

The short form here is a part of every run of tests/hosting; ERPS_STRESS=long is the figure of docs/serving.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import Gunicorn
from support import Certs, child_environ
from tokens import PATIENCE, executed

LONG = os.environ.get("ERPS_STRESS") == "long"
CLIENTS = 8
HUPS = 20 if LONG else 3
RESTARTS = 20 if LONG else 2
CALLS_PER_WORKER = 5000 if LONG else 1500
ROUNDS = 5 if LONG else 1  # of TTIN and TTOU, and of TERM of each worker
WITHIN = 120.0  # seconds for any one step, on a busy machine

CONF = """\
worker_class = "erps_gevent.integrations.gunicorn.ErpsWorker"
workers = 2
certfile = {cert!r}
keyfile = {key!r}
ca_certs = {ca!r}
cert_reqs = 2
max_requests = {max_requests}
max_requests_jitter = {max_requests} // 5

def post_worker_init(worker):
    worker.log.info("Worker ready (pid: %s)", worker.pid)
"""


class Service:
    """gunicorn, and the clients that call it."""

    def __init__(self, start, directory: Path, certs: Certs) -> None:
        self.directory = directory
        self.certs = certs
        self.exits = 0  # workers that are to have ended, by the log
        self.boots = 2  # workers that are to have been started
        shutil.copy(Path(__file__).parent / "tokens.py", directory)
        self.configure(0)
        self.gunicorn = start(Gunicorn, "-c", "gunicorn.conf.py", "tokens:Tokens")
        self.port = self.gunicorn.url.rpartition(":")[2]
        self.booted(0)
        self.clients = [self.client() for _ in range(CLIENTS)]

    def configure(self, max_requests: int) -> None:
        text = CONF.format(**self.certs.identity("server"), max_requests=max_requests)
        (self.directory / "gunicorn.conf.py").write_text(text)

    def client(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.directory / "tokens.py"), self.port, str(self.certs.directory)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=child_environ()
        )
        assert process.stdout.readline() == "calling\n"
        return process

    def gone(self, count: int) -> None:
        """Wait until so many workers more have ended."""
        self.exits += count
        self.gunicorn.wait_for(r"Worker exiting \(pid: \d+\)", self.exits, WITHIN)

    def booted(self, count: int) -> None:
        """Wait until so many workers more have been started, and the last of them can accept.

        gunicorn tells the old workers to go before the new ones have booted. Who does that again and again, faster than
        they boot, has nobody left who accepts; and then calls fail, after the client's connect_timeout.
        """
        self.boots += count
        for pid in self.gunicorn.workers(self.boots)[-max(count, 1) :]:
            self.gunicorn.wait_for(rf"Worker ready \(pid: {pid}\)", 1, WITHIN)

    def live(self) -> list[int]:
        """The workers that are there, oldest first."""
        log = self.gunicorn.log
        ended = set(re.findall(r"Worker exiting \(pid: (\d+)\)", log))
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", log) if pid not in ended]

    def reload(self) -> None:
        self.gunicorn.send(signal.SIGHUP)
        self.booted(2)
        self.gone(2)

    def stop_calling(self) -> list[dict]:
        for client in self.clients:
            client.terminate()
        done = [json.loads(client.communicate(timeout=2 * PATIENCE)[0]) for client in self.clients]
        assert [client.returncode for client in self.clients] == [0] * CLIENTS
        return done


@pytest.fixture
def service(start, tmp_path, certs):
    made = Service(start, tmp_path, certs)
    yield made
    for client in made.clients:
        client.kill()
        client.communicate()


def test_no_call_fails_and_none_is_executed_twice_whatever_is_done_to_the_workers(service, capsys):
    gunicorn = service.gunicorn
    for _ in range(HUPS):
        service.reload()

    service.configure(CALLS_PER_WORKER)
    service.reload()
    gunicorn.wait_for("Autorestarting worker", RESTARTS, WITHIN)
    service.configure(0)
    gunicorn.send(signal.SIGHUP)
    gunicorn.wait_for("Hang up: Master", HUPS + 2, WITHIN)
    until_settled(service)

    for _ in range(ROUNDS):
        gunicorn.send(signal.SIGTTIN)
        service.booted(1)
        gunicorn.send(signal.SIGTTOU)
        service.gone(1)
    for _ in range(ROUNDS):
        for pid in service.live():
            os.kill(pid, signal.SIGTERM)
            service.gone(1)
            service.booted(1)

    done = service.stop_calling()
    made = sum(one["made"] for one in done)
    failed = [text for one in done for text in one["failed"]]
    counts = executed(service.directory)
    moves, longest = sum(one["moves"] for one in done), max(one["longest"] for one in done)
    with capsys.disabled():
        print(
            f"\n{made} calls, {len(failed)} failed, {len(service_pids(gunicorn))} workers, {moves} moves, "
            f"the longest call {longest} s; {gunicorn.log.count('SIGKILL')} SIGKILLs"
        )
    assert failed == []
    assert counts.total() == made
    assert set(counts.values()) == {1}
    assert moves > 0
    assert gunicorn.stop() == 0
    assert "SIGKILL" not in gunicorn.log
    assert "graceful timeout" not in gunicorn.log
    assert "Traceback" not in gunicorn.log
    assert "was sent" not in gunicorn.log, "a worker was killed by a signal"


def until_settled(service: Service) -> None:
    """The count of workers that end by max_requests is not known beforehand: wait for a pair that nobody restarts."""
    gunicorn = service.gunicorn
    reloaded = gunicorn.log.rindex("Hang up: Master")
    while True:
        booted = re.findall(r"Booting worker with pid: (\d+)", gunicorn.log[reloaded:])
        ready = all(f"Worker ready (pid: {pid})" in gunicorn.log for pid in service.live())
        if len(booted) >= 2 and len(service.live()) == 2 and ready:
            break
        signal.sigtimedwait([], 0.05)
    service.exits = len(re.findall("Worker exiting", gunicorn.log))
    service.boots = len(re.findall("Booting worker", gunicorn.log))


def service_pids(gunicorn: Gunicorn) -> set[str]:
    return set(re.findall(r"Booting worker with pid: (\d+)", gunicorn.log))
