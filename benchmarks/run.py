"""How fast it is: against raw sockets and against other Python libraries, in one run on this machine.

    python benchmarks/run.py                      every case, with the peers; about a quarter of an hour
    python benchmarks/run.py --quick              the hot cases in about a minute
    python benchmarks/run.py --case one casts     these cases only; --list has their names
    python benchmarks/run.py --markdown FILE --json FILE

Every server and every driver is a process of its own. Contestants take turns, round by round (A B C A B C ...), and
what is printed are medians of the rounds with quartiles, and ratios: a figure without the ratio beside it says how fast
the machine is. The peers live in an environment of their own, benchmarks/.peers, which the first run makes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import environment
from cases import CASES, FRESH_ROUNDS, QUICK, Case
from processes import Team, race
from tables import Results, case_table, targets_table

ROUNDS, SECONDS = 7, 1.0
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.3


def measure(
    cases: Sequence[Case], rounds: int, seconds: float, with_peers: bool = True, tell: Any = None
) -> tuple[Results, dict[str, str]]:
    """Race each case; the results, and the versions of whoever took part."""
    results: Results = {}
    versions: dict[str, str] = {}
    trouble = ""
    pythons = {False: sys.executable, True: sys.executable}
    if with_peers and any(entry.peer for case in cases for entry in case.entries):
        pythons[True], trouble = environment.peers()
    with tempfile.TemporaryDirectory() as directory:
        more = {"certificates": environment.certificates(Path(directory))}
        for case in cases:
            racing = [entry for entry in case.entries if not entry.peer or (with_peers and not trouble)]
            teams = [Team(case, entry, pythons[entry.peer], more) for entry in racing]
            race(teams, min(rounds, FRESH_ROUNDS) if case.fresh else rounds, seconds)
            results[case.name] = {team.entry.name: {"rounds": team.rounds, "failure": team.failure} for team in teams}
            if trouble and with_peers:
                results[case.name] |= {
                    entry.name: {"rounds": [], "failure": trouble} for entry in case.entries if entry.peer
                }
            for team in teams:
                versions |= team.versions
            if tell:
                tell(case.name, results[case.name])
    return results, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", metavar="NAME", default=[], help="these only; see --list")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}; fewer and shorter rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one round")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round of every contestant")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed")
    parser.add_argument("--list", action="store_true", help="the cases")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:16} {case.title}" for name, case in CASES.items()))
        return
    names = options.case or (QUICK if options.quick else tuple(CASES))
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    printed: list[str] = []

    def tell(text: str) -> None:
        printed.append(text)
        print(text, flush=True)

    results, versions = measure(
        [CASES[name] for name in names],
        rounds,
        seconds,
        not options.without_peers,
        lambda name, entries: tell(case_table(name, entries) + "\n"),
    )
    about = environment.about(versions)
    tell("### Targets\n\n" + targets_table(results) + "\n")
    tell(f"{rounds} rounds of {seconds:g} s. " + ", ".join(f"{name} {value}" for name, value in about.items()))
    if options.json:
        options.json.write_text(
            json.dumps({"about": about, "rounds": rounds, "seconds": seconds, "cases": results}, indent=2)
        )
    if options.markdown:
        options.markdown.write_text("\n".join(printed) + "\n")


if __name__ == "__main__":
    main()
