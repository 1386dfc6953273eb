"""Native threads and greenlets share one client in an unpatched program, and some of them are struck in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest
from conftest import DaemonProcess, times
from support import child_environ

EXIT_TIME = 3.0  # seconds from the last word of the program to its end; a second was measured at the most


@pytest.mark.parametrize("wire", ["tcp", "tls13"], indirect=True)
def test_threads_and_greenlets_share_a_client_while_some_are_struck(target: DaemonProcess) -> None:
    calls = times(20_000, 200_000)
    script = Path(__file__).parent / "crowd.py"
    command = [sys.executable, str(script), str(target.port), target.wire, str(target.certs.directory), str(calls)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=child_environ())
    assert child.stdout is not None
    said = b""
    # The target is another process, so that it may be read without a hub.
    while chunk := os.read(child.stdout.fileno(), 65536):
        said += chunk
        if b"\n" in said:
            break
    last_word = monotonic()
    _, errors = child.communicate(timeout=60)
    took = monotonic() - last_word
    assert (child.returncode, errors) == (0, b""), errors.decode()
    counts = Counter(json.loads(said))
    print(counts, f"left in {took:.2f} s")
    assert counts["right"] == calls
    assert counts["wrong"] == 0
    for struck in ("CallTimeout", "Timeout", "killed", "Struck"):
        assert counts[struck] > 0, counts
    assert counts["pending"] == counts["lost"] == 0
    assert counts["connects"] == 1
    assert took < EXIT_TIME
