"""Where the microseconds of a call go, on each side: a table of modules, and of the functions that take most.

    python benchmarks/profile_calls.py                   one caller, and 100 callers on one line
    python benchmarks/profile_calls.py --case casts --seconds 20 --markdown FILE

py-spy, from the peers' environment, looks at both processes from outside SAMPLES times a second, and leaves out those
looks at which they slept. A function's microseconds are its share of the looks, of the processor time of one call as
the same run measured it. What C code takes counts for the Python function that called it; gevent's loop, with
epoll, has no other Python function than `Hub.run`. On a machine that does something else meanwhile, what waits for a
core is counted where it waits.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from threading import Thread

import environment
from cases import CASES, TCP, Entry
from processes import Team
from tables import number, table, weather_line

Looks = Counter[tuple[str, str]]
SAMPLES = 250  # a second; more, and py-spy itself takes a core that the two need
FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*?)(:\d+)?\)$")
ELSEWHERE = (
    ("erps_gevent/", None),
    ("gevent/", "gevent"),
    ("contestants/", "the benchmark"),
    ("loads.py", "the benchmark"),
)


def module_of(file: str) -> str:
    """What a row of the table of modules is about: each module of ours, and the others together."""
    for part, name in ELSEWHERE:
        if part in file:
            return name or part + file.rpartition(part)[2]
    return "Python and others"


def parse(raw: str) -> Looks:
    """Looks for each (module, function) that ran, from py-spy's collapsed stacks: `outer (file);inner (file) count`."""
    counts: Looks = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frame = FRAME.match(stack.rpartition(";")[2])
        if frame:
            counts[module_of(frame["file"]), frame["function"]] += int(count)
    return counts


def spied(pid: int, seconds: float, into: Path) -> subprocess.Popen[bytes]:
    what = ["record", "--pid", str(pid), "--rate", str(SAMPLES), "--duration", str(int(seconds))]
    how = ["--format", "raw", "--function", "--nonblocking", "--output", str(into)]
    spy = str(environment.PEERS / "bin" / "py-spy")
    return subprocess.Popen([spy, *what, *how], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def system_share(pid: int, before: tuple[int, int]) -> float:
    """The share of the processor time since `before` that the kernel had."""
    user, system = (now - then for now, then in zip(ticks(pid), before, strict=True))
    return system / max(1, user + system)


def ticks(pid: int) -> tuple[int, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def profile(name: str, entry: Entry, seconds: float, certificates: dict[str, str]) -> str:
    """The tables of one case."""
    team = Team(CASES[name], entry, sys.executable, {"certificates": certificates})
    try:
        team.run(0.5)  # the processes are there, and warm
        if team.failure:
            sys.exit(f"{name}: {team.failure}")
        looks, kernel = look_at(team, seconds)
    finally:
        team.end()
    cpu = {side: team.rounds[-1][f"{side}_cpu"] for side in looks}
    costs = "; ".join(
        f"{side} {number(cpu[side])} µs of processor time a call, {kernel[side]:.0%} of it in the kernel"
        for side in cpu
    )
    head = f"### {name}: {CASES[name].title}, {entry.name}\n\n{costs}"
    return "\n\n".join([head, modules_table(looks, cpu), functions_table(looks, cpu)])


def look_at(team: Team, seconds: float) -> tuple[dict[str, Looks], dict[str, float]]:
    """What both sides did during one round; and the kernel's share of their time."""
    pids = {"client": team.driver_pid, "server": team.server_pid}
    before = {side: ticks(pid) for side, pid in pids.items()}
    with tempfile.TemporaryDirectory() as directory:
        files = {side: Path(directory) / side for side in pids}
        work = Thread(target=team.run, args=(seconds,))
        work.start()
        spies = [spied(pid, seconds, files[side]) for side, pid in pids.items()]
        work.join()
        kernel = {side: system_share(pid, before[side]) for side, pid in pids.items()}
        for spy in spies:
            spy.wait()
        return {side: parse(file.read_text()) for side, file in files.items()}, kernel


def micros(looks: Looks, cpu: float) -> dict[tuple[str, str], float]:
    return {key: count / max(1, looks.total()) * cpu for key, count in looks.items()}


def modules_table(looks: dict[str, Looks], cpu: dict[str, float]) -> str:
    sides = {}
    for side in looks:
        sides[side] = Counter[str]()
        for (module, _), cost in micros(looks[side], cpu[side]).items():
            sides[side][module] += cost
    modules = sorted({*sides["client"], *sides["server"]}, key=lambda m: -sides["client"][m] - sides["server"][m])
    rows = [[module, *(f"{sides[side][module]:.2f}" for side in sides)] for module in modules]
    return table(["module", *(f"{side}, µs" for side in sides)], rows)


def functions_table(looks: dict[str, Looks], cpu: dict[str, float], most: int = 12) -> str:
    rows = []
    for side in looks:
        costs = sorted(micros(looks[side], cpu[side]).items(), key=lambda item: -item[1])[:most]
        rows += [[side, f"{module}: {function}", f"{cost:.2f}"] for (module, function), cost in costs]
    return table(["side", "function", "µs"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=["one", "hundred"], metavar="NAME")
    parser.add_argument("--entry", default=TCP, help="whose: its name in the case")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed")
    options = parser.parse_args()
    _, trouble = environment.peers()
    if trouble:
        sys.exit(f"py-spy is {trouble}")
    printed = []
    with tempfile.TemporaryDirectory() as directory:
        certificates = environment.certificates(Path(directory))
        for name in options.case:
            served = [entry for entry in CASES[name].entries if entry.served] if name in CASES else []
            entry = next((entry for entry in served if entry.name == options.entry), None)
            if entry is None:
                parser.error(f"there is no server of {options.entry!r} in a case {name!r}")
            with environment.Weather() as weather:
                tables = profile(name, entry, options.seconds, certificates)
            printed.append(f"{tables}\n\n{weather_line(weather.elsewhere)}")
            print(printed[-1] + "\n", flush=True)
    if options.markdown:
        options.markdown.write_text("\n\n".join(printed) + os.linesep)


if __name__ == "__main__":
    main()
