"""benchmarks/: its tables are about what is measured, its figures are right, and it runs."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from support import ROOT, run_python

BENCHMARKS = ROOT / "benchmarks"
MODULES = ("cases", "check", "environment", "figures", "packets", "processes", "profile_calls", "tables", "targets")


@pytest.fixture(scope="module")
def bench():
    """The modules of benchmarks/, which import each other by their bare names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})


def results(**rates):
    """What run.py has measured: one case with an entry for each of `rates`."""
    return {"one": {name: {"rounds": [{"rate": rate} for rate in each], "failure": ""} for name, each in rates.items()}}


def target(bench, **changes):
    given = {"title": "t", "case": "one", "entry": "ours", "metric": "rate", "per": ("base", "rate")}
    return bench.targets.Target(**{**given, "bound": 0.5, "aim": 0.8, "unit": "base", **changes})


def run(script, *arguments):
    return run_python(BENCHMARKS / script, *arguments)


def test_a_spread_is_the_median_between_the_quartiles(bench):
    spread = bench.figures.spread([5, 1, 4, 2, 3])
    assert (spread.q1, spread.median, spread.q3) == (2, 3, 4)
    assert bench.figures.spread([7]) == bench.figures.Spread(7, 7, 7)


def test_a_quantile_is_one_of_the_values(bench):
    values = list(range(1000))
    assert [bench.figures.quantile(values, of) for of in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 999]


def test_no_rounds_have_no_median_and_no_quantile(bench):
    with pytest.raises(ValueError, match="no rounds to take a median of"):
        bench.figures.spread([])
    with pytest.raises(ValueError, match="no values to take a quantile of"):
        bench.figures.quantile([], 0.5)


def test_a_ratio_is_of_medians_so_that_one_bad_round_does_not_count(bench):
    assert bench.figures.ratio([10, 10, 1000], [20, 0.1, 20]) == 0.5


def test_every_entry_has_a_module_and_its_own_name_in_its_case(bench):
    for case in bench.cases.CASES.values():
        names = [entry.name for entry in case.entries]
        assert len({*names}) == len(names), case.name
        for entry in case.entries:
            assert (BENCHMARKS / "contestants" / f"{entry.module}.py").exists(), entry


def test_every_target_is_about_entries_that_are_measured(bench):
    for each in bench.targets.TARGETS:
        names = {entry.name for entry in bench.cases.CASES[each.case].entries}
        assert {each.entry, *([each.per[0]] if isinstance(each.per, tuple) else [])} <= names, each.title
        assert each.aim <= each.bound if each.most else each.aim >= each.bound, each.title


def test_the_floor_runs_in_every_case_that_a_target_compares_with_it(bench):
    floors = {case.name for case in bench.cases.CASES.values() if case.entries[0].name == bench.cases.R}
    assert {"one", "hundred", "hundred-lines", "casts", "payload-1MiB"} <= floors


def test_the_quick_cases_are_cases(bench):
    assert {*bench.cases.QUICK} <= {*bench.cases.CASES}


def test_the_largest_payload_is_within_what_a_peer_takes(bench):
    from erps_gevent import options
    from erps_gevent.wire import terms

    size = bench.cases.CASES["payload-16MiB"].plan["size"]
    assert size < len(terms.encode(b"x" * size, "request")) <= options.BOTH["max_size"].default


def test_the_floor_sends_as_many_bytes_as_a_packet_of_ours(bench):
    small = bench.packets.wire_sizes({"load": "sequential", "size": 16})
    large = bench.packets.wire_sizes({"load": "sequential", "size": 1016})
    assert all(16 < size < 200 for size in small)
    assert all(1000 <= more - less < 1010 for more, less in zip(large, small, strict=True))


@pytest.mark.parametrize(
    ("most", "measured", "margin", "missed"),
    [
        (False, 0.49, 0.0, True),
        (False, 0.5, 0.0, False),
        (False, 0.46, 0.1, False),
        (False, 0.44, 0.1, True),
        (True, 0.51, 0.0, True),
        (True, 0.5, 0.0, False),
        (True, 0.54, 0.1, False),
        (True, 0.56, 0.1, True),
    ],
)
def test_a_target_is_missed_beyond_its_bound_and_margin(bench, most, measured, margin, missed):
    assert target(bench, most=most, aim=0.5).missed(measured, margin) is missed


def test_what_was_not_measured_is_neither_reached_nor_missed(bench):
    assert target(bench).measured(lambda *_: []) is None
    assert bench.check.missed({}, 0.0) == []


def test_a_target_can_be_a_number(bench):
    assert target(bench, per=1024.0).measured(lambda *_: [2048.0]) == 2.0


def test_a_figure_has_its_ratio_to_the_first_entry_beside_it(bench):
    text = bench.tables.case_table("one", results(base=[1000, 2000, 3000], ours=[500])["one"])
    ours = next(line for line in text.splitlines() if line.startswith("| ours"))
    assert [cell.strip() for cell in ours.strip("|").split("|")] == ["ours", "0.25", "500", "500 - 500"]


def test_who_failed_is_in_the_table_with_the_reason(bench):
    found = {"base": {"rounds": [{"rate": 1}], "failure": ""}, "peer": {"rounds": [], "failure": "not installed: why"}}
    assert "failed: not installed: why" in bench.tables.case_table("one", found)


def test_the_table_of_targets_and_the_check_tell_short_from_reached(bench):
    floor, ours = bench.cases.R, bench.cases.TCP
    for rate, margin, verdict in ((76, 0.1, "reached"), (70, 0.1, "short"), (60, 0.1, "BELOW by more than 10%")):
        measured = results(**{floor: [100], ours: [rate]})
        row = bench.tables.targets_table(measured, margin).splitlines()[2]
        assert row.startswith("| one caller, TCP ")
        assert f"| {verdict} |" in row
        assert bench.check.missed(measured, margin) == (["one caller, TCP"] if "BELOW" in verdict else [])


def test_the_check_has_all_targets_and_nobody_else(bench):
    short = {(case.name, entry.name) for case in bench.check.short_cases() for entry in case.entries}
    assert {(each.case, each.entry) for each in bench.targets.TARGETS} <= short
    assert ("one", "Pyro5") not in short


def test_a_profile_counts_the_innermost_function_by_its_module(bench):
    raw = (
        "serve (contestants/erps.py);decode (/lib/erps_gevent/wire/terms.py:12) 3\n"
        "run (gevent/hub.py);decode (/lib/erps_gevent/wire/terms.py:14) 2\n"
        "main (x.py);wait (threading.py) 1\n"
        "main (x.py);Hub.run (gevent/hub.py) 4\n"
    )
    assert bench.profile_calls.parse(raw) == {
        ("erps_gevent/wire/terms.py", "decode"): 5,
        ("Python and others", "wait"): 1,
        ("gevent", "Hub.run"): 4,
    }


def test_a_contestant_that_cannot_run_says_why(bench):
    entry = bench.cases.Entry("nobody", "nobody", served=False)
    team = bench.processes.Team(bench.cases.Case("c", "c", {}, (entry,)), entry, sys.executable, {})
    bench.processes.race([team], rounds=2, seconds=0.01)
    assert not team.rounds
    assert "No module named contestants.nobody" in team.failure


def test_an_unknown_case_is_refused_with_those_that_there_are():
    done = run("run.py", "--case", "two")
    assert done.returncode == 2
    assert "there is no case two; there are one, hundred," in done.stderr


def test_a_case_runs_with_processes_of_its_own_over_tcp_and_tls(tmp_path):
    written = tmp_path / "results.json"
    arguments = ("--rounds", "2", "--seconds", "0.02", "--without-peers", "--json", str(written))
    done = run("run.py", "--case", "payload-16B", *arguments, "--markdown", str(tmp_path / "tables.md"))
    assert done.returncode == 0, done.stderr
    table = done.stdout[: done.stdout.index("### Targets")]
    assert (tmp_path / "tables.md").read_text().endswith(table.rstrip("\n") + "\n")
    found = json.loads(written.read_text())
    entries = found["cases"]["payload-16B"]["entries"]
    assert [*entries] == ["R (raw gevent, one caller)", "erps TCP", "erps TLS"]
    for entry in entries.values():
        assert not entry["failure"]
        assert len(entry["rounds"]) == 2
        for figures in entry["rounds"]:
            assert 0 < figures["p50"] <= figures["p99"] <= figures["p999"]
            assert min(figures["rate"], figures["client_cpu"], figures["server_cpu"]) > 0
    assert {"date", "CPU", "Python", "gevent", "cbor2", "OpenSSL"} <= {*found["about"]}
