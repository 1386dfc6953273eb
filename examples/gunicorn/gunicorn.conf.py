"""gunicorn's settings: see docs/serving.md for what each means to a worker that serves Erps."""

import ssl

worker_class = "erps_gevent.integrations.gunicorn.ErpsWorker"
bind = "localhost:4747"
workers = 2

# Two-way TLS. Renewed files are picked up for new lines without a reload.
certfile = "certs/localhost.pem"
keyfile = "certs/localhost.key"
ca_certs = "certs/ca.pem"
cert_reqs = ssl.CERT_REQUIRED

# Calls, not connections: a worker that has answered so many has its clients move, and is replaced.
max_requests = 100_000
max_requests_jitter = 10_000
