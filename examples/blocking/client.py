"""Two clients: one has the shop look something up, the other only says ping meanwhile.

    python client.py

The server has to run first; the docstring of server.py says how.
"""

import time

import gevent

import erps_gevent as erps


class ShopClient(erps.Client, identifier="shop", version="1.0.0"):
    pass


def client():
    return ShopClient("./shop.sock", transport=erps.Tcp(), hub="here")


if __name__ == "__main__":
    with client() as one, client() as other:
        one.call("ping")
        other.call("ping")
        for way in ("wrong", "right"):
            asking = gevent.spawn(one.call, (way, "tea"))
            gevent.sleep(0.05)
            start = time.monotonic()
            other.call("ping")
            waited = time.monotonic() - start
            answer = asking.get()
            print(f"{way}: {answer}; the other client {'waited' if waited > 0.3 else 'did not wait'}")
