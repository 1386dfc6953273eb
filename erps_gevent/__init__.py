"""Blocking GenServer calls over persistent two-way TLS, for synchronous Python. See README.md."""

__version__ = "0.1.0"
