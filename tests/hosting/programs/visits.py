"""The one global client of each program here, and what they do with it."""

from __future__ import annotations

import os

import erps_gevent as erps

tls = erps.Tls(ca="certs/ca.pem", cert="certs/web.pem", key="certs/web.key")
visits = erps.Client(os.environ["VISITS"], transport=tls, identifier="visits", version="1.0.0")


def visit(page: str) -> tuple[int, int]:
    """How often the page was visited, and the process id of who did it now."""
    return visits.call(("visit", page, os.getpid()), timeout=5.0), os.getpid()
