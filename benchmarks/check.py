"""Is it still as fast as it was meant to be? The short cases, in under a minute.

    python benchmarks/check.py                 exit status 1 if a ratio misses its bound by more than the margin;
                                               2 if one does, but the machine was too busy to tell
    python benchmarks/check.py --margin 0.1    another margin, a share of the bound

The bounds are those of targets.py. Not part of the tests: a machine that does something else meanwhile fails it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from cases import CASES, Case
from run import measure
from tables import Results, rounds_of, targets_table, weather_line
from targets import TARGETS

MARGIN = 0.15  # what rounds this short differ by on a quiet machine, and a little more
BUSY = 0.25  # of the cores, for others. At 0.8 the ratios of one run were from a seventh to three times those in calm
ROUNDS, SECONDS = 3, 0.3
FEW_LINES = 1000  # instead of ten thousand that say nothing: opening them takes most of a minute


def short_cases() -> list[Case]:
    """The cases of the targets, with those entries only that a target is about."""
    wanted = {(target.case, target.entry) for target in TARGETS}
    wanted |= {(target.case, target.per[0]) for target in TARGETS if isinstance(target.per, tuple)}
    cases = [
        replace(case, entries=tuple(e for e in case.entries if (name, e.name) in wanted))
        for name, case in CASES.items()
    ]
    return [shortened(case) for case in cases if case.entries]


def shortened(case: Case) -> Case:
    return replace(case, plan={**case.plan, "connections": FEW_LINES}) if case.name == "idle" else case


def missed(results: Results, margin: float) -> list[str]:
    """The titles of the targets that were measured and missed by more than the margin."""
    measured = [(target, target.measured(lambda *key: rounds_of(results, *key))) for target in TARGETS]
    return [target.title for target, ratio in measured if ratio is not None and target.missed(ratio, margin)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--margin", type=float, default=MARGIN)
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    found = dict(measure(short_cases(), ROUNDS, SECONDS, not options.without_peers))
    results = {name: each.entries for name, each in found.items()}
    print(targets_table(results, options.margin))
    elsewhere = max(each.elsewhere for each in found.values())
    print("\n" + weather_line(elsewhere))
    failed = [
        f"{entry} failed at {case}: {found['failure']}"
        for case, entries in results.items()
        for entry, found in entries.items()
        if found["failure"]
    ]
    print("\n".join(failed))
    below = missed(results, options.margin)
    if below:
        print(f"below the bound by more than {options.margin:.0%}: {'; '.join(below)}")
    if below and elsewhere > BUSY:
        print(f"but the machine was too busy to tell: {elsewhere:.0%} of its cores did something else")
        sys.exit(2)
    sys.exit(1 if below or failed else 0)


if __name__ == "__main__":
    main()
