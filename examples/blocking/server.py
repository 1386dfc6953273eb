"""A handler that blocks, the warning that names it, and the same work mended.

    python server.py

and, in another terminal, in the same directory:

    python client.py

The server prints the warning: `Shop.handle_call has blocked the hub for ...`, with the stack. Both ends are on this
machine, so a unix socket does without TLS.
"""

import logging
import signal
import time

import gevent

import erps_gevent as erps
from erps_gevent import Reply


def look_up(what):
    time.sleep(0.5)  # stands for a query by a driver that knows nothing of gevent
    return f"a price for {what}"


class Shop(erps.Server, identifier="shop", versions="~=1.0"):
    def handle_call(self, request, from_):
        match request:
            case "ping":
                return Reply("pong")
            case ("wrong", str(what)):
                return Reply(look_up(what))
            case ("right", str(what)):
                return Reply(self.run_blocking(look_up, what))
        raise erps.ErrorReply("unknown_request")


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(message)s")
    daemon = erps.Daemon("./shop.sock", Shop, transport=erps.Tcp(), blocking_threshold=0.1)
    for signum in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(signum, daemon.close)
    daemon.start()
    print("the server is at ./shop.sock", flush=True)
    daemon.serve_forever()
