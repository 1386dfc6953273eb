"""Answers that take their time, and do not keep anybody waiting meanwhile.

A server process takes one message at a time. `self.defer` gives the answer to a greenlet, so that the process takes
the next message; `self.run_blocking` gives work that would hold up every greenlet to a thread; together, both.

    python server.py

and, in another terminal, in the same directory:

    python client.py

Both ends are on this machine, so a unix socket does without TLS.
"""

import hashlib
import signal

import gevent

import erps_gevent as erps
from erps_gevent import Reply

SHOPS = ("north", "east", "south", "west")
SLOW = 0.3  # seconds that a shop needs for an offer


def hashed(password, salt):
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


class Later(erps.Server, identifier="later", versions="~=1.0"):
    def handle_call(self, request, from_):
        match request:
            case "ping":
                return Reply("pong")
            case ("offers", str(what)):
                return self.defer(from_, self.offers, what, from_)
            case ("hash", str(password), bytes(salt)):
                return self.defer(from_, self.run_blocking, hashed, password, salt)
        raise erps.ErrorReply("unknown_request")

    def offers(self, what, from_):
        """As many offers as there is time for: an answer after the caller's deadline would be dropped."""
        found = {}
        for shop in SHOPS:
            left = from_.remaining()  # None: the caller waits for ever
            if left is not None and left < 1.5 * SLOW:
                break
            gevent.sleep(SLOW)  # stands for a request over the network
            found[shop] = f"{what} from the {shop}"
        return found


if __name__ == "__main__":
    daemon = erps.Daemon("./later.sock", Later, transport=erps.Tcp())
    for signum in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(signum, daemon.close)  # serve_forever then has the clients move, and returns
    daemon.start()
    print("the server is at ./later.sock", flush=True)
    daemon.serve_forever()
