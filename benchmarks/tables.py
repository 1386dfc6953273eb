"""The results as markdown: a table of targets, and one for each case, with a ratio beside every figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cases import CASES
from figures import ratio, spread
from targets import TARGETS, Target

Results = dict[str, dict[str, Any]]
"""case -> entry -> {"rounds": [figures of a round], "failure": text}"""

UNITS = {"rate": ("/s", 1.0), "bytes": ("KiB", 1024.0), "micros": ("ms", 1000.0)}
CALM = 0.1  # share of the cores
EXTRA = ("p50", "p99", "p999", "client_cpu", "server_cpu")


def rounds_of(results: Results, case: str, entry: str, metric: str) -> list[float]:
    found = results.get(case, {}).get(entry, {"rounds": []})["rounds"]
    return [figures[metric] for figures in found if metric in figures]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, with columns as wide as what is in them."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def case_table(name: str, entries: dict[str, Any]) -> str:
    """What each entry reached, against the first of them."""
    case = CASES[name]
    unit, scale = UNITS[case.metric]
    base = next(iter(entries))
    of = [rounds_of({name: entries}, name, base, case.metric)]
    extra = [
        metric for metric in EXTRA if any(metric in figures for each in entries.values() for figures in each["rounds"])
    ]
    head = ["who", f"x {base}", f"median, {unit}", "quartiles", *(f"{metric}, µs" for metric in extra)]
    rows = []
    for entry, found in entries.items():
        values = rounds_of({name: entries}, name, entry, case.metric)
        if not values:
            rows.append([entry, "-", f"failed: {found['failure']}", "", *("" for _ in extra)])
            continue
        middle = spread([value / scale for value in values])
        quartiles = f"{number(middle.q1)} - {number(middle.q3)}"
        against = number(ratio(values, of[0])) if of[0] else "-"
        rows.append(
            [entry, against, number(middle.median), quartiles, *(_extra(found["rounds"], metric) for metric in extra)]
        )
    return f"### {name}: {case.title}\n\n{table(head, rows)}"


def _extra(rounds: list[dict[str, float]], metric: str) -> str:
    values = [figures[metric] for figures in rounds if metric in figures]
    return number(spread(values).median) if values else ""


def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def weather_line(elsewhere: float) -> str:
    """How much to believe it: who waits for a core loses time to others, and the faster loses the larger share."""
    return f"Meanwhile {elsewhere:.0%} of the cores did something else." + (
        " Measure again." if elsewhere > CALM else ""
    )


def targets_table(results: Results, margin: float | None = None) -> str:
    """What was to be reached, and what was; with the margin that check.py allows."""
    head = ["target", "in", "bound", "aim", "measured", "quartiles of the rounds' ratios", ""]
    rows = [_target_row(target, results, margin) for target in TARGETS]
    return table(head, [row for row in rows if row])


def _target_row(target: Target, results: Results, margin: float | None) -> list[str]:
    measured = target.measured(lambda *key: rounds_of(results, *key))
    if measured is None:
        return []
    sign = "≤" if target.most else "≥"
    verdict = "short" if target.missed(measured) else "reached"
    if margin is not None and target.missed(measured, margin):
        verdict = f"BELOW by more than {margin:.0%}"
    return [
        target.title,
        target.unit,
        f"{sign} {target.bound}",
        f"{target.aim}",
        number(measured),
        _paired(target, results),
        verdict,
    ]


def _paired(target: Target, results: Results) -> str:
    """Between what half of the ratios lie, each of one round: neighbours in time, under the same weather."""
    ours = rounds_of(results, target.case, target.entry, target.metric)
    if not isinstance(target.per, tuple):
        middle = spread([value / target.per for value in ours])
    else:
        base = rounds_of(results, target.case, *target.per)
        middle = spread([mine / theirs for mine, theirs in zip(ours, base, strict=False)])
    return f"{number(middle.q1)} - {number(middle.q3)}"
