"""A Flask application with one global client; the docstring of server.py says how to run it.

Each worker process has one line to the server, which all its threads or greenlets share. Nothing here depends on which
worker it is, and nothing is to be done after a fork.
"""

import os

from flask import Flask

import erps_gevent as erps

tls = erps.Tls(ca="certs/ca.pem", cert="certs/web.pem", key="certs/web.key")
visits = erps.Client(
    os.environ.get("VISITS", "erps://localhost:4747"), transport=tls, identifier="visits", version="1.0.0"
)

app = Flask(__name__)


@app.get("/<page>")
def visit(page):
    count = visits.call(("visit", page, os.getpid()), timeout=5.0)
    return {"page": page, "visits": count, "worker": os.getpid()}


@app.errorhandler(erps.CallExit)
def unavailable(error):
    """The server is down, or late: that is said at once, and the next request finds it healed."""
    return {"error": str(error)}, 503
