"""A counter on every core, served by gunicorn over two-way TLS.

Once, in this directory: certificates for the server and for a client.

    erps certs certs --server localhost,127.0.0.1 --client alice

Then gunicorn, whose settings are in gunicorn.conf.py; Ctrl-C or `kill` ends it, `kill -HUP` reloads it:

    gunicorn server:make

and, in another terminal, a client, which moves from worker to worker without a failed call while you reload:

    python client.py alice
"""

import os

import erps_gevent as erps
from erps_gevent import Reply


class Counter(erps.Server, identifier="counter", versions="~=1.0"):
    def init(self, start):
        self.count = start

    def handle_call(self, request, from_):
        match request:
            case ("add", int(n)):
                self.count += n
                return Reply((os.getpid(), self.count))
        raise erps.ErrorReply("unknown_request")


def make(listener, transport):
    """What gunicorn calls in each worker, once for each of its sockets."""
    return erps.Daemon(listener, Counter, 0, transport=transport, max_connection_age=600)
