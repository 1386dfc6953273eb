"""examples/web over HTTP: the same files under every worker of gunicorn, preloaded or not, and in plain threads."""

from __future__ import annotations

import signal
from time import monotonic

import pytest
from hosts import Gunicorn, Host, get
from web import Visitor, VisitsServer, commands, copy_example

QUICK = 10.0  # seconds for all of gunicorn to end; it waits 30 for a worker, and kills it then
WORKERS = {
    "sync": [],
    "gthread": ["--worker-class", "gthread", "--threads", "8"],
    "gevent": ["--worker-class", "gevent"],
}
WAYS = {
    "own": ([], "{}:app"),
    "preloaded": (["--preload"], "{}:app"),
    # The client has a line in the master, before it forks.
    "used": (["--preload"], "used_{}:app"),
    # As gunicorn.conf.py says in a comment: the master is patched before it imports the application.
    "patched": (["--preload", "--config", "patched.conf.py"], "used_{}:app"),
}
MATRIX = [(app, worker, way) for app in ("flask_app", "django_app") for worker in WORKERS for way in ("own", "used")]
MATRIX += [("flask_app", "gevent", "preloaded"), ("flask_app", "gevent", "patched")]

# What `manage.py runserver` and many a small program does: a native thread for each request.
THREADED = """
import socketserver, wsgiref.simple_server
from django_app import app

class Threaded(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 64

server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, server_class=Threaded)
print("Running on http://127.0.0.1:%d" % server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return copy_example(tmp_path_factory.mktemp("example"))


@pytest.fixture
def visits(start, place):
    return start(VisitsServer, cwd=place)


def arguments(app, worker, way):
    preload, target = WAYS[way]
    return [*WORKERS[worker], *preload, target.format(app)]


def check_lines(server, workers):
    """One line for each worker, and each line is of one process alone."""
    for worker in workers:
        server.wait_for(rf"is of worker {worker}\n")
    lines = server.lines()
    assert len({line for line, _ in lines}) == len(lines), lines
    assert sorted(worker for _, worker in lines if worker in workers) == sorted(workers), lines


def check_log(host):
    assert [word for word in ("Traceback", "SIGKILL", "Error") if word in host.log] == []


@pytest.mark.parametrize(("app", "worker", "way"), MATRIX)
def test_one_global_client_serves_every_worker_and_survives_a_reload(start, place, visits, app, worker, way):
    host = start(Gunicorn, *arguments(app, worker, way), cwd=place, VISITS=visits.url)
    visitor = Visitor(host.url)
    first = host.workers(2)
    assert visitor.visit_all(*first) == set(first)
    check_lines(visits, first)

    host.send(signal.SIGHUP)
    second = host.workers(4)[2:]
    host.wait_for(rf"Worker exiting \(pid: (?:{first[0]}|{first[1]})\)", count=2)
    assert visitor.visit_all(*second) >= set(second)
    check_lines(visits, first + second)

    began = monotonic()
    assert host.stop(signal.SIGTERM) == 0
    assert monotonic() - began < QUICK
    check_log(host)


def test_the_docstring_tells_nothing_that_is_not_tried():
    tried = [arguments(*variant) for variant in MATRIX]
    told = [words[1:] for words in commands() if words[0] == "gunicorn"]
    assert told
    assert [words for words in told if words not in tried] == []


def test_one_global_client_serves_the_threads_of_flask(start, place, visits):
    (words,) = (words for words in commands() if words[0] == "flask")
    words = ["0" if word == "8000" else word for word in words]
    check_threads(start(Host, "-m", *words, cwd=place, VISITS=visits.url), visits)


def test_one_global_client_serves_the_threads_of_a_wsgi_server(start, place, visits):
    check_threads(start(Host, "-c", THREADED, cwd=place, VISITS=visits.url), visits)


def check_threads(host, visits):
    (url,) = host.wait_for(r"Running on (http\S+)")
    assert Visitor(url).visit_all(host.pid) == {host.pid}
    check_lines(visits, [host.pid])
    began = monotonic()
    host.stop(signal.SIGINT)
    assert monotonic() - began < QUICK


@pytest.mark.parametrize("app", ["flask_app", "django_app"])
def test_while_the_server_is_down_a_request_is_told_so(start, place, visits, app):
    assert visits.stop() == 0
    host = start(Gunicorn, f"{app}:app", cwd=place, VISITS=visits.url)
    status, text = get(f"{host.url}/page")
    assert status == 503
    assert "refused" in text
