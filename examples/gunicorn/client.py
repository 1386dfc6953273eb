"""A client of the counter under gunicorn.

    python client.py alice

The server has to run first; the docstring of server.py says how.
"""

import sys

import erps_gevent as erps

if __name__ == "__main__":
    name = sys.argv[1]
    tls = erps.Tls(ca="certs/ca.pem", cert=f"certs/{name}.pem", key=f"certs/{name}.key")
    with erps.Client(("localhost", 4747), identifier="counter", version="1.0.0", transport=tls) as counter:
        for n in (3, 4):
            worker, count = counter.call(("add", n), timeout=5.0)
            print(f"{n} more make {count}, says worker {worker}")
