"""Calls from several threads over one line.

    python client.py

The server has to run first; the docstring of server.py says how.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import erps_gevent as erps


class LaterClient(erps.Client, identifier="later", version="1.0.0"):
    pass


def timed(client, request, timeout):
    start = time.monotonic()
    answer = client.call(request, timeout=timeout)
    return answer, time.monotonic() - start


if __name__ == "__main__":
    with LaterClient("./later.sock", transport=erps.Tcp()) as later, ThreadPoolExecutor() as threads:
        patient = threads.submit(timed, later, ("offers", "tea"), 5.0)
        hasty = threads.submit(timed, later, ("offers", "tea"), 1.0)
        hashing = threads.submit(timed, later, ("hash", "secret", os.urandom(16)), 5.0)
        answer, seconds = timed(later, "ping", 1.0)
        print(f"{answer} after {seconds:.1f} s, while the others wait")
        answer, _ = hashing.result()
        print(f"a hash of {len(answer)} bytes")
        answer, seconds = hasty.result()
        print(f"{len(answer)} offers after {seconds:.1f} s, in time for timeout=1.0")
        answer, seconds = patient.result()
        print(f"{len(answer)} offers after {seconds:.1f} s")
