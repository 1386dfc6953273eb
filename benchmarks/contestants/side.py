"""One side of a contestant as a process of its own, which run.py speaks with in JSON, a line at a time.

    python -m contestants.NAME serve PLAN     says on which port it serves, and serves until it is ended
    python -m contestants.NAME drive PLAN     reads what a round adds to the plan, runs the round, says what it measured

Standard library only: the peers' environment has nothing of ours. A module of a contestant has

    serve(plan, ready)   serve, and call `ready(port)` once that listens
    connect(plan)        a line to plan["port"], which has `call(value)` and `close()`
    gather(functions)    run these at once, and return when all have returned
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from threading import Thread
from types import ModuleType
from typing import Any

import loads

Plan = dict[str, Any]


def main(name: str) -> None:
    contestant = sys.modules[name]
    role, plan = sys.argv[1], json.loads(sys.argv[2])
    if role == "serve":
        Thread(target=end_with_who_started_us, daemon=True).start()
        contestant.serve(plan, lambda port: say({"port": port}))
    else:
        drive(contestant, plan)


def end_with_who_started_us() -> None:
    sys.stdin.read()
    os._exit(0)


def drive(contestant: ModuleType, plan: Plan) -> None:
    functions = {**loads.LOADS, **getattr(contestant, "LOADS", {})}
    say({"versions": getattr(contestant, "VERSIONS", {})})
    for line in sys.stdin:
        this_round = {**plan, **json.loads(line)}
        say(functions[this_round["load"]](contestant, this_round))


def say(message: Plan) -> None:
    print(json.dumps(message), flush=True)


def in_threads(functions: list[Callable[[], None]]) -> None:
    """`gather` of those who have a thread for each caller."""
    threads = [Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
