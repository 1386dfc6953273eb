"""How fast it is: against raw sockets and against other Python libraries, in one run on this machine.

    python benchmarks/run.py                      every case, with the peers; about a quarter of an hour
    python benchmarks/run.py --quick              the hot cases in about a minute
    python benchmarks/run.py --case one casts     these cases only; --list has their names
    python benchmarks/run.py --markdown FILE --json FILE

Every server and every driver is a process of its own, each with half of the cores. Contestants take turns, round by
round (A B C A B C ...), and what is printed are medians of the rounds with quartiles, and ratios: a figure without the
ratio beside it says how fast the machine is. The peers live in an environment of their own, benchmarks/.peers, which
the first run makes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import environment
from cases import CASES, FRESH_ROUNDS, QUICK, Case
from processes import Team, race
from tables import case_table, targets_table, weather_line

ROUNDS, SECONDS = 7, 1.0
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.3


@dataclass(frozen=True)
class Found:
    """What one case gave: its entries as tables.py has them, who took part, and what else the cores were doing."""

    entries: dict[str, Any]
    versions: dict[str, str]
    elsewhere: float


def measure(cases: Sequence[Case], rounds: int, seconds: float, with_peers: bool = True) -> Iterator[tuple[str, Found]]:
    """Race one case after the other; what each gave, as it is known."""
    python, trouble = sys.executable, "left out"
    if with_peers and any(entry.peer for case in cases for entry in case.entries):
        python, trouble = environment.peers()
    with tempfile.TemporaryDirectory() as directory:
        secured = any(case.plan_of(entry).get("tls") for case in cases for entry in case.entries)
        certificates = environment.certificates(Path(directory)) if secured else {}
        more = {"scratch": directory, "certificates": certificates}
        for case in cases:
            racing = [entry for entry in case.entries if not (entry.peer and trouble)]
            teams = [Team(case, entry, python if entry.peer else sys.executable, more) for entry in racing]
            with environment.Weather() as weather:
                race(teams, min(rounds, FRESH_ROUNDS) if case.fresh else rounds, seconds)
            entries = {team.entry.name: {"rounds": team.rounds, "failure": team.failure} for team in teams}
            absent = [entry.name for entry in case.entries if with_peers and entry not in racing]
            entries |= {name: {"rounds": [], "failure": trouble} for name in absent}
            versions = {name: value for team in teams for name, value in team.versions.items()}
            yield case.name, Found(entries, versions, weather.elsewhere)


def main() -> None:
    options = parsed()
    if options.list:
        print("\n".join(f"{name:16} {case.title}" for name, case in CASES.items()))
        return
    found: dict[str, Found] = {}
    cases = [CASES[name] for name in options.case]
    for name, each in measure(cases, options.rounds, options.seconds, not options.without_peers):
        found[name] = each
        print(part_of(name, each), flush=True)
    versions = {name: value for each in found.values() for name, value in each.versions.items()}
    about = {**environment.about(versions), "rounds": f"{options.rounds} of {options.seconds:g} s"}
    head = ", ".join(f"{name} {value}" for name, value in about.items()) + "\n"
    targets = "### Targets\n\n" + targets_table({name: each.entries for name, each in found.items()}) + "\n"
    print(targets, head, sep="\n")
    if options.json:
        written = {"about": about, "cases": {name: asdict(each) for name, each in found.items()}}
        options.json.write_text(json.dumps(written, indent=2))
    if options.markdown:
        options.markdown.write_text("\n".join([head, targets, *(part_of(name, each) for name, each in found.items())]))


def part_of(name: str, found: Found) -> str:
    return f"{case_table(name, found.entries)}\n\n{weather_line(found.elsewhere)}\n"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", metavar="NAME", help="these only; see --list")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}; fewer and shorter rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one round")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round of every contestant")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed")
    parser.add_argument("--list", action="store_true", help="the cases")
    options = parser.parse_args()
    options.case = options.case or (QUICK if options.quick else tuple(CASES))
    if unknown := [name for name in options.case if name not in CASES]:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    return options


if __name__ == "__main__":
    main()
