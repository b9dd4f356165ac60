"""Plots of runs and values: sums are kept, and many parts make no big files."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.records import RejectionReason, UnitFailure, UnitReport
from rgpt_batch.report.rates import cost_of
from rgpt_batch.report.rows import REASONS, Distribution
from rgpt_batch.report.runs import RunRecord, run_facts
from rgpt_batch.report.svg import MAX_SINGLE_PARTS, NARROW, WIDE, Frame, Plot, Scale
from rgpt_batch.report.time_plots import MAX_LANES, timeline
from rgpt_batch.report.value_plots import changes, histogram
from rgpt_batch.report.work_time import activity, scoring_seconds, spans
from tests.jobs import Scored
from tests.report.jobs import write_report
from tests.report.pages import Page


def make_report(number: int, worker: str, start: float, **values: object) -> UnitReport:
    """A unit that is read for 1 s, waits for 2 s, is scored for 4 s and committed for 0.5 s."""
    settings = {
        "unit_id": f"{number:06d}",
        "worker": worker,
        "num_rows": 8,
        "committed": True,
        "engine": "fake",
        "passed_over": (),
        "num_prompt_tokens": 80,
        "num_dropped_document_tokens": 0,
        "num_truncated_rows": 0,
        "read_seconds": 1.0,
        "engine_seconds": 4.0,
        "commit_seconds": 0.5,
        "started_at": start,
        "finished_at": start + 7.5,
    }
    return UnitReport(**{**settings, **values})  # type: ignore[arg-type]


def make_record(start: float, end: float, *units: UnitReport, **values: object) -> RunRecord:
    settings = {"run_id": "r", "state": "complete", "config": {}, "versions": {}}
    return RunRecord.model_validate(
        {**settings, "started_at": start, "finished_at": end, "units": units, **values}
    )


TWO_RUNS = (
    make_record(1000, 1020, make_report(0, "a", 1001), make_report(1, "b", 1002)),
    make_record(5000, 5030, make_report(2, "a", 5003), make_report(3, "c", 5015)),
)


def test_work_time_leaves_out_the_time_between_runs() -> None:
    units = spans(TWO_RUNS)
    assert [span.read for span in units] == [(1, 2), (2, 3), (23, 24), (35, 36)]
    assert [span.engine for span in units] == [(4, 8), (5, 9), (26, 30), (38, 42)]
    assert [span.commit for span in units] == [(8, 8.5), (9, 9.5), (30, 30.5), (42, 42.5)]


def test_runs_at_the_same_time_lie_beside_each_other() -> None:
    records = [
        make_record(1000, 1020, make_report(0, "a", 1001), make_report(1, "b", 1002)),
        make_record(1005, 1030, make_report(2, "a", 1006)),
        # Later, and by a clock that is behind.
        make_record(900, 910, make_report(3, "a", 901)),
    ]
    units = spans(records)
    assert [span.read[0] for span in units] == [1, 2, 6, 31]
    # The second run's worker of the same name is another one.
    assert [span.lane for span in units] == [0, 1, 2, 0]
    found = activity(records, 20)
    assert found is not None
    assert found.run_starts == (0, 5, 30) and found.edges[-1] == 40
    assert found.pairs_per_second @ np.diff(found.edges) == pytest.approx(32)
    # Seconds 1 to 13.5, and 31 to 38.5.
    assert scoring_seconds(records) == pytest.approx(12.5 + 7.5)
    assert scoring_seconds(TWO_RUNS) == pytest.approx(8.5 + 19.5)


@pytest.mark.parametrize("num_bins", [1, 7, 50, 1000])
def test_speed_over_time_adds_up_to_all_pairs_and_tokens(num_bins: int) -> None:
    found = activity(TWO_RUNS, num_bins)
    assert found is not None
    widths = np.diff(found.edges)
    assert found.edges[0] == 0 and found.edges[-1] == 50 and (widths > 0).all()
    assert 20.0 in found.edges, "a bin reaches over the end of a run"
    assert found.pairs_per_second @ widths == pytest.approx(32)
    assert found.prompt_tokens_per_second @ widths == pytest.approx(320)


def test_engines_are_busy_where_they_score() -> None:
    found = activity(TWO_RUNS, 500)
    assert found is not None
    middles = (found.edges[1:] + found.edges[:-1]) / 2
    busy = dict(zip(middles.round(2), found.engine_busy_fraction, strict=True))
    expected = {2.05: 0, 6.05: 1, 8.55: 1, 15.05: 0, 28.05: 1, 34.05: 0, 40.05: 1}
    assert {time: pytest.approx(busy[time]) for time in expected} == expected


def test_no_unit_no_activity() -> None:
    assert activity([], 10) is None
    assert activity([make_record(1, 2)], 10) is None


def test_a_worker_that_replaces_a_dead_one_is_not_another() -> None:
    units = [make_report(0, "a", 0), make_report(1, "b", 0), make_report(2, "c", 8)]
    assert run_facts(1, make_record(0, 20, *units)).num_workers == 2
    assert [span.lane for span in spans([make_record(0, 20, *units)])] == [0, 1, 0]


def test_hardware_is_told_by_worker_and_a_replaced_one_is_no_other() -> None:
    units = [
        make_report(0, "a", 0, hardware="H100"),
        make_report(1, "b", 0, hardware="H200"),
        make_report(2, "c", 8, hardware="H100"),
        make_report(3, "d", 0, hardware="H100"),
    ]
    assert run_facts(1, make_record(0, 20, *units)).hardware == {"H100": 2, "H200": 1}


def test_records_of_before_tell_no_hardware() -> None:
    assert run_facts(1, make_record(0, 20, make_report(0, "a", 0))).hardware == {}


def test_speed_is_of_scoring_and_without_copied_scores() -> None:
    """Twenty seconds of start, two units from 20 to 32.5 s; half of a unit's pairs are copied."""
    units = [make_report(0, "a", 20), make_report(1, "a", 25, num_reused=4)]
    facts = run_facts(1, make_record(0, 40, *units))
    assert (facts.start_seconds, facts.scoring_seconds, facts.seconds) == (20, 12.5, 40)
    assert facts.pairs_per_second == pytest.approx(12 / 12.5)
    # From 21 s, the first unit's engine call at the earliest, to the last commit's start.
    assert facts.engine_time.scoring_seconds == pytest.approx(32 - 21)
    assert facts.engine_time.busy_seconds == 8
    cost = cost_of([facts], 3600.0, "EUR")
    assert cost.total == pytest.approx(40)
    assert cost.scoring == pytest.approx(11) and cost.around == pytest.approx(29)
    assert cost.per_million_pairs == pytest.approx(11 / 12 * 1e6)


def test_retries_and_failures_are_marked() -> None:
    failure = UnitFailure(unit_id="7", num_rows=3, num_attempts=3, cause="x", failed_at=12.0)
    record = make_record(
        *(0, 20, make_report(0, "a", 0), make_report(1, "a", 8, num_attempts=2)),
        summary={"failures": [asdict(failure)]},
    )
    over_time = activity([record], 10)
    assert over_time is not None
    plot = timeline(spans([record]), [record], over_time, WIDE)
    marks = [(mark.style, mark.title) for mark in plot.marks if mark.style in ("retry", "failure")]
    assert marks == [
        ("retry", "unit 000001: attempt 2"),
        ("failure", "unit 7 given up after 3 attempts"),
    ]
    facts = run_facts(1, record)
    assert (facts.num_retried, facts.failures) == (1, (failure,))


def engine_boxes(plot: Plot) -> list[tuple[float, float]]:
    """Left and right ends of what is drawn of engines."""
    boxes = []
    for mark in plot.marks:
        if mark.style == "engine":
            for x, width in re.findall(r"M([\d.]+) [\d.]+h([\d.]+)", mark.attributes["d"]):
                boxes.append((float(x), float(x) + float(width)))
    return boxes


def test_merged_units_cover_the_same_time() -> None:
    units = [make_report(i, "a", 8.0 * i) for i in range(600)]
    assert len(units) > MAX_SINGLE_PARTS
    record = make_record(0, 4800, *units, make_report(600, "a", 10_000))
    over_time = activity([record], 10)
    assert over_time is not None
    plot = timeline(spans([record]), [record], over_time, WIDE)
    (first, second) = engine_boxes(plot)
    x = next(m for m in plot.marks if m.style == "axis").attributes
    scale = Scale(low=0, high=10_007.5, start=float(x["x1"]), end=float(x["x2"]))
    assert first == pytest.approx((scale(3), scale(599 * 8 + 7)), abs=0.2)
    # Too short for a pixel of its own, it gets one.
    assert second == pytest.approx((scale(10_003), scale(10_003) + 1), abs=0.2)


def test_ten_thousand_units_on_a_hundred_workers_make_a_small_page(
    job: Scored, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(job.folder, tmp_path / "scored"))
    record = max((output / "_rgpt" / "runs").iterdir())
    chooser = random.Random(0)
    units = [
        make_report(
            i,
            f"w{i % 100}",
            1e9 + i // 100 * chooser.uniform(6, 12),
            num_attempts=chooser.choice([1, 1, 1, 2]),
        )
        for i in range(10_000)
    ]
    entry = json.loads(record.read_bytes())
    entry |= {"started_at": 1e9, "finished_at": 1e9 + 1300, "units": list(map(asdict, units))}
    entry["summary"]["failures"] = [
        asdict(
            UnitFailure(unit_id=f"{i}", num_rows=1, num_attempts=3, cause="x", failed_at=1e9 + i)
        )
        for i in range(1000)
    ]
    record.write_text(json.dumps(entry))
    assert write_report(output, "--to", tmp_path / "r.html").exit_code == 0
    assert (tmp_path / "r.html").stat().st_size < 1_000_000
    page = Page.read(tmp_path / "r.html")
    assert f"Shown are {MAX_LANES} of 100 workers." in page.text


def distribution(values: list[float], cell: float = 0.0) -> Distribution:
    found, counts = np.unique(np.array(values, np.float64), return_counts=True)
    return Distribution(values=found, counts=counts, cell=cell, mean=float(np.mean(values)))


def heights(plot: Plot) -> dict[str, float]:
    return {
        str(mark.title): float(mark.attributes["height"])
        for mark in plot.marks
        if mark.style == "bar"
    }


def draw(found: Distribution, frame: Frame = WIDE) -> Plot:
    return histogram(found, name="p", title="t", label="x", frame=frame, decimals=2)


def test_bars_are_as_high_as_their_counts() -> None:
    found = heights(draw(distribution([1.0] * 30 + [2.0] * 10 + [3.0] * 20)))
    highest = found["1.00: 30 rows"]
    assert found["2.00: 10 rows"] == pytest.approx(highest / 3, abs=0.1)
    assert found["3.00: 20 rows"] == pytest.approx(highest * 2 / 3, abs=0.1)


def test_far_outliers_are_counted_instead_of_drawn() -> None:
    values = [round(-3 + i % 100 / 100, 2) for i in range(5000)]
    plot = draw(distribution([*values, -1000.0], cell=0.001))
    assert "1 outlier not drawn" in [mark.text for mark in plot.marks]
    assert sum(int(re.findall(r"(\d+) rows", title)[0]) for title in heights(plot)) == 5000


@pytest.mark.parametrize("values", [[-2.5], [0.0], [-2.5] * 7, [-2.5, 0.0]])
def test_few_values_are_drawn_as_well(values: list[float]) -> None:
    plot = draw(distribution(values, cell=0.001))
    assert len(heights(plot)) == len(set(values))


@pytest.mark.parametrize("num_queries", [1, 30, 5000])
def test_queries_are_drawn_best_first_and_in_bounded_size(num_queries: int) -> None:
    differences = [(f"q{i}", (i - num_queries // 2) / num_queries) for i in range(num_queries)]
    plot = changes(differences, "AP", WIDE)
    assert len(plot.marks) < MAX_SINGLE_PARTS + 50
    assert sum(len(str(mark.attributes)) for mark in plot.marks) < 100_000
    texts = [mark.text for mark in plot.marks]
    assert f"better: {(num_queries - 1) // 2:,}" in texts
    assert f"worse: {num_queries // 2:,}" in texts
    bars = [mark.title for mark in plot.marks if mark.style in ("gain", "loss")]
    if num_queries == 30:
        assert bars[0] == "q29: +0.4667" and bars[-1] == f"q0: {chr(0x2212)}0.5000"


def test_quantiles_are_those_of_the_values() -> None:
    values = [float(v) for v in (1, 1, 2, 3, 5, 8, 13)]
    for share in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1):
        expected = np.quantile(values, share, method="inverted_cdf")
        assert distribution(values).quantile(share) == expected


def test_ticks_are_round_and_inside() -> None:
    assert Scale(low=-7.3, high=-1.2, start=0, end=1).ticks(8) == [-7, -6, -5, -4, -3, -2]
    quarters = [0, 900, 1800, 2700, 3600, 4500, 5400]
    assert Scale(low=0, high=5400, start=0, end=1).time_ticks(8) == quarters
    assert Scale(low=0, high=2, start=0, end=1).time_ticks(8) == [0, 0.5, 1, 1.5, 2]


def test_every_reason_of_a_rejection_is_explained() -> None:
    assert REASONS.keys() == set(RejectionReason)


def test_the_highest_tick_stands_above_the_highest_bar() -> None:
    for count in (1, 7, 199, 200, 1234):
        plot = draw(distribution([1.0] * count + [3.0]))
        ticks = [mark for mark in plot.marks if mark.style == "grid"]
        highest = min(float(mark.attributes["y1"]) for mark in ticks)
        tops = [float(mark.attributes["y"]) for mark in plot.marks if mark.style == "bar"]
        assert highest <= min(tops)


def test_pictures_as_wide_as_the_page_have_a_twin_for_narrow_screens(
    job: Scored, qrels: Path, bm25: Path, tmp_path: Path
) -> None:
    """A picture that shrinks to a phone's width has letters that nobody can read."""
    path = tmp_path / "r.html"
    assert (
        write_report(job.folder, "--to", path, "--qrels", qrels, "--baseline", bm25).exit_code == 0
    )
    pictures = Page.read(path).all("svg")
    widths = {
        (picture.attributes["class"], float((picture.attributes["viewbox"] or "").split()[2]))
        for picture in pictures
    }
    assert widths == {("wide", WIDE.width), ("narrow", NARROW.width), ("small", 300.0)}
    names = [(e.attributes["aria-labelledby"] or "").split("-") for e in pictures]
    for frame in ("wide", "narrow"):
        drawn = [name for name, found, *_ in names if found == frame]
        assert drawn == ["intervals", "changes", "speed", "timeline", "scores"]
    # A phone is 390 pixels wide, less the page's margins.
    assert NARROW.width <= 390 - 2 * 16


def test_marks_of_narrow_pictures_stay_inside(job: Scored, tmp_path: Path) -> None:
    values = [round(-3 + i % 100 / 100, 2) for i in range(5000)]
    differences = [(f"q{i}", (i - 20) / 40) for i in range(40)]
    for plot in (
        draw(distribution(values, cell=0.001), NARROW),
        changes(differences, "AP", NARROW),
    ):
        for mark in plot.marks:
            for name in ("x", "x1", "x2"):
                assert 0 <= float(mark.attributes.get(name, 0)) <= NARROW.width
