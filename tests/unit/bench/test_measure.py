"""The bench's arithmetic: what it says of a run is what happened in it."""

import dataclasses

import pytest

from bench.double import MARK
from bench.load import Job, event_body
from bench.measure import Outcome, outcome, percentiles
from bench.report import Growth, Program, Report, text
from bench.watch import difference

MS = 1_000_000
JOB = Job(port=1, path="/", phase=4, count=4, connections=1)


def told(**changes):
    sent = {
        "sent_ns": [0, 10 * MS, 20 * MS, 30 * MS],
        "answered_ns": [2 * MS, 12 * MS, 22 * MS, 32 * MS],
        "refused": {},
        "cpu_s": 0.5,
    }
    return sent | changes


def calls(second):
    return {
        "slack": {str(n): [n] for n in range(4)},
        "salesforce": {str(n): list(times) for n, times in second.items()},
    }


def test_rates_and_latencies_are_counted_from_the_post():
    found = outcome(JOB, told(), calls({n: [(n * 10 + 8) * MS] for n in range(4)}))
    assert found.executions_per_s == pytest.approx(4 / 0.038)
    assert found.accepted_per_s == pytest.approx(4 / 0.032)
    assert found.latency_ms == {"p50": 8, "p95": 8, "p99": 8, "max": 8}
    assert (found.missing, found.repeated, found.is_whole) == (0, 0, True)


def test_missing_and_repeated_calls_are_told():
    found = outcome(JOB, told(), calls({0: [9 * MS], 1: [19 * MS, 20 * MS, 21 * MS]}))
    assert (found.missing, found.repeated, found.is_whole) == (2, 2, False)


def test_refused_posts_make_a_run_incomplete():
    sent = told(answered_ns=[2 * MS, 0, 0, 0], refused={"503": 3})
    found = outcome(JOB, sent, calls({n: [40 * MS] for n in range(4)}))
    assert (found.refused, found.is_whole) == ({"503": 3}, False)


def test_percentiles_are_values_that_occurred():
    assert percentiles([float(n) for n in range(1, 101)]) == {
        "p50": 51,
        "p95": 96,
        "p99": 100,
        "max": 100,
    }
    assert percentiles([])["p99"] == float("inf")


def test_mark_of_an_event_is_found_in_what_vendors_are_sent():
    mark = MARK.search(event_body(3, 17))
    assert (mark[1], mark[2]) == (b"3", b"17")


def test_parts_that_appear_later_count_whole():
    assert difference({"a": 1.0}, {"a": 3.0, "b": 2.0}) == {"a": 2.0, "b": 2.0}


def program(executions_per_s, p99):
    full = Outcome(10, executions_per_s=executions_per_s)
    steady = Outcome(10, latency_ms=percentiles([p99]), accept_ms=percentiles([1.0]))
    return Program(full, steady, {"gateway": 1.0}, {"gateway": 2.0})


def report(**changes):
    base = Report(
        cores=2,
        rate=50,
        floors=[program(1_000, 2), program(2_000, 2)],
        product=program(400, 50),
        memory={"gateway": 100, "whole": 100},
        resident=120,
        idle_cpu={"kafka": 0.05},
        expected=20,
        ended={"succeeded": 20},
        read_side={"succeeded": 20},
        watch_cpu_s=0.1,
    )
    return dataclasses.replace(base, **changes)


def test_product_is_compared_with_the_faster_floor():
    assert report().ratio == pytest.approx(0.2)


def test_long_run_is_told_part_by_part():
    growth = [Growth(1_000, 0, {"kafka": 3 << 20}), Growth(2_000, 512.4, {"kafka": 5 << 20})]
    head, first, second = text(report(growth=growth)).splitlines()[-3:]
    assert head.split() == ["executions", "per", "s", "kafka", "whole", "(MB)"]
    assert first.split() == ["1,000", "0", "3", "3"]
    assert second.split() == ["2,000", "512", "5", "5"]


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"product": program(200, 50)}, ["at least 15% of the floor"]),
        ({"product": program(400, 121)}, ["p99 below 120 ms"]),
        ({"memory": {"whole": 2 << 30}}, ["memory below 1.2 GiB"]),
    ],
)
def test_missed_targets_are_named(changes, missed):
    found = report(**changes)
    assert found.misses == missed
    assert all(f"MISSED {miss}" in text(found) for miss in missed)


@pytest.mark.parametrize(
    "changes",
    [
        {"ended": {"succeeded": 19}},
        {"ended": {"succeeded": 19, "failed": 1}},
        {"read_side": {"succeeded": 19, "running": 1}},
    ],
)
def test_run_is_whole_only_where_log_and_api_agree(changes):
    assert report().is_whole
    assert not report(**changes).is_whole
