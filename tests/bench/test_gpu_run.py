"""`benchmarks/gpu`: steps that fail, hang or come too late do not cost the others their tables."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.gpu.run import Outcome, Results, run
from benchmarks.gpu.step_profile import describe, device_events
from benchmarks.gpu.steps import Plan, Step
from benchmarks.gpu.tables import Table
from tests.conftest import ROOT

# A step's program: writes its table first, as all of them do, and then what the test says.
WRITE = """
import os, sys, time
from pathlib import Path
from benchmarks.gpu.tables import Table
Table(Path(sys.argv[sys.argv.index("--to") + 1]), "Speeds", ("way", "pairs/s")).add("fast", 7.5)
"""


def step(name: str, code: str = "", **settings: float | str) -> Step:
    given = {"limit_seconds": 60.0, "min_seconds": 0.0, **settings}
    return Step(name=name, command=("-c", WRITE + code), has_budget=False, **given)  # type: ignore[arg-type]


def measure(
    tmp_path: Path, steps: Sequence[Step], budget: float = 120
) -> tuple[list[Outcome], str, list[dict[str, object]]]:
    work = tmp_path / "work"
    work.mkdir()
    results = Results(tmp_path / "results", work, "bench", "a card")
    outcomes = run(steps, results, budget)
    lines = results.path.with_suffix(".jsonl").read_text().splitlines()
    return outcomes, results.path.read_text(), [json.loads(line) for line in lines]


def problems(outcomes: Sequence[Outcome]) -> dict[str, str | None]:
    return {outcome.name: outcome.problem for outcome in outcomes}


def test_a_step_that_fails_is_told_with_its_last_line_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    outcomes, text, records = measure(
        tmp_path, [step("breaks", "sys.exit('no kernel image')"), step("works")]
    )
    assert problems(outcomes) == {"breaks": "exit code 1: no kernel image", "works": None}
    # What the one that failed had measured is there, too.
    assert text.count("| fast | 7.5 |") == 2
    assert "| breaks | " in text
    assert [each["way"] for each in records if "way" in each] == ["fast", "fast"]
    assert records[0]["run"]["hardware"] == "a card"  # type: ignore[index]


def test_a_step_that_hangs_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    code = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path({str(note)!r}).write_text(str(child.pid))
time.sleep(600)
"""
    outcomes, text, _ = measure(tmp_path, [step("hangs", code, limit_seconds=8.0), step("works")])
    assert problems(outcomes) == {"hangs": "ended after its limit of 8 s", "works": None}
    assert text.count("| fast | 7.5 |") == 2
    assert not is_running(int(note.read_text()))


def is_running(pid: int) -> bool:
    try:
        # A zombie has ended, too.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_step_for_which_no_time_is_left_is_told(tmp_path: Path) -> None:
    outcomes, text, _ = measure(
        tmp_path, [step("works"), step("late", min_seconds=500.0)], budget=60
    )
    assert problems(outcomes)["works"] is None
    reason = problems(outcomes)["late"] or ""
    assert reason.startswith("not measured: ")
    assert reason.endswith(" s left, it takes 500")
    assert f"| late | 0 | {reason} |" in text


@pytest.mark.parametrize(
    ("code", "expected"), [("", ["first"]), ("sys.exit(1)", ["first", "other"])]
)
def test_a_fallback_runs_where_its_step_has_failed(
    code: str, expected: list[str], tmp_path: Path
) -> None:
    steps = [step("first", code), step("other", fallback_of="first")]
    outcomes, _, _ = measure(tmp_path, steps)
    assert [outcome.name for outcome in outcomes] == expected


def test_a_run_that_is_killed_leaves_the_tables_of_the_step_that_ran(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from tests.bench.test_gpu_run import measure, step
measure(Path({str(tmp_path)!r}), [step("hangs", "time.sleep(600)")])
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    deadline = time.monotonic() + 120
    texts: list[str] = []
    while time.monotonic() < deadline and not any("| fast | 7.5 |" in text for text in texts):
        texts = [file.read_text() for file in (tmp_path / "results").glob("*.md")]
        time.sleep(0.1)
    # As at the end of a lent machine's time; its step is not told and has to be ended here.
    (child,) = children(process.pid)
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)
    (file,) = (tmp_path / "results").glob("*.md")
    assert "| fast | 7.5 |" in file.read_text()


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_every_mode_has_steps_with_different_names_and_options_of_bloom_reach_bloom_alone() -> None:
    plan = Plan(tiny=False, cache=Path("cache"), options=("a=1",), bloom_options=("b=2",))
    for mode in ("check", "bench", "rest"):
        steps = plan.steps(mode)
        assert len({each.name for each in steps}) == len(steps)
        for each in steps:
            words = each.arguments(Path("t.md"), 100)
            if each.name != "attention":
                assert "a=1" in words
                assert ("b=2" in words) == any(word.startswith("bloom") for word in words)


def test_rows_of_a_table_are_in_both_files_at_once(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.md", "T", ("a", "b|c"))
    table.add("x|y", None)
    assert (tmp_path / "t.md").read_text().splitlines()[-1] == "| x\\|y | - |"
    assert json.loads((tmp_path / "t.jsonl").read_text()) == {"table": "T", "a": "x|y", "b|c": None}
    table.add("z", 0.123456)
    table.add("large", 12345.6)
    assert (tmp_path / "t.md").read_text().endswith("| z | 0.123 |\n| large | 12,346 |\n")
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 3


def test_a_profile_tells_how_busy_the_gpu_was(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json.gz"
    kernel = {"cat": "kernel", "name": "gemm"}
    events = [
        {**kernel, "ts": 150, "dur": 30},
        {**kernel, "ts": 0, "dur": 100},
        # Runs beside the first kernel, and past its end.
        {"cat": "gpu_memcpy", "name": "copy", "ts": 90, "dur": 20},
        {"cat": "cpu_op", "name": "add", "ts": 0, "dur": 1000},
    ]
    with gzip.open(trace, "wt") as file:
        json.dump({"traceEvents": events}, file)
    text = describe(device_events(trace), num_pairs=4)
    # Busy from 0 to 110 and from 150 to 180.
    assert "4 pairs in 0.2 ms while traced; busy 78%; 3 kernels and copies." in text
    assert "- 1 gaps above 10 µs: 22.2% of the time" in text
    assert "| 86.7% | `gemm` |" in text


@pytest.mark.long
@pytest.mark.vllm
@pytest.mark.timeout(1300)
def test_the_whole_command_checks_and_measures_tiny_models(tmp_path: Path) -> None:
    # Seven starts of vLLM in two steps, about two minutes of two free cores.
    for mode, name in (("check", "check others"), ("bench", "bloom-560m")):
        done = subprocess.run(
            [
                *(sys.executable, "benchmarks/gpu/run.py", "--tiny", "--budget", "550", mode),
                *("--only", name, "--cache", tmp_path / "cache", "--to", tmp_path / "results"),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (check,) = (tmp_path / "results").glob("*-check.md")
    rows = [line.split(" | ") for line in check.read_text().splitlines() if "| llama2-7b |" in line]
    verdicts = {row[1]: row[-1].rstrip(" |") for row in rows}
    assert verdicts["query-rows"] == verdicts["prompt-logprobs"] == "agrees"
    assert verdicts["token-ids"].startswith("not measured: ")
    (bench,) = (tmp_path / "results").glob("*-bench.jsonl")
    records = [json.loads(line) for line in bench.read_text().splitlines()]
    turns = {(each["variant"], each["queries_per_document"]) for each in records if "turn" in each}
    assert turns == {
        *(("eval", 1), ("prompt-logprobs", 1), ("query-rows", 1)),
        *(("prompt-logprobs", 16), ("query-rows", 16)),
    }
