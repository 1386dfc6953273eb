"""One global client in a web application: Flask or Django, under any worker of gunicorn, with preload_app or without.

Once, in this directory: what the applications need, and certificates for the server and for the web's workers.

    pip install erps_gevent[demo] gunicorn[gevent] flask django
    erps certs certs --server localhost --client web

Then the server that counts visits; Ctrl-C or `kill` ends it:

    python server.py 4747

and, in another terminal, one of the applications, which are at http://127.0.0.1:8000/:

    gunicorn flask_app:app
    gunicorn django_app:app

The same files, unchanged, in the other ways of gunicorn; with --preload the master imports the application before it
forks:

    gunicorn --worker-class gthread --threads 8 flask_app:app
    gunicorn --worker-class gevent flask_app:app
    gunicorn --worker-class gevent --preload flask_app:app

and with a thread for each request:

    flask --app flask_app run --port 8000
"""

import signal
import sys
from collections import Counter
from itertools import count

import gevent

import erps_gevent as erps
from erps_gevent import Reply

VISITS = Counter()  # of all lines: what outlives a line, or is shared, is not in its server process
NUMBERS = count(1)


class Visits(erps.Server, identifier="visits", versions="~=1.0"):
    def init(self):
        self.line = next(NUMBERS)
        self.worker = None

    def handle_call(self, request, from_):
        match request:
            case ("visit", str(page), int(worker)):
                if worker != self.worker:
                    self.worker = worker
                    print(f"line {self.line} is of worker {worker}", flush=True)
                VISITS[page] += 1
                return Reply(VISITS[page])
        raise erps.ErrorReply("unknown_request")


if __name__ == "__main__":
    tls = erps.Tls(ca="certs/ca.pem", cert="certs/localhost.pem", key="certs/localhost.key")
    daemon = erps.Daemon(("localhost", int(sys.argv[1])), Visits, transport=tls)
    for signum in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(signum, daemon.close)  # serve_forever then has the clients move, and returns
    daemon.start()
    print(f"the visits are at localhost:{daemon.server_port}", flush=True)
    daemon.serve_forever()
