"""SIGKILL of a job that changes the order of rows: while it clusters, scores, and writes them back.

Each test costs some ten starts of the command, which take most of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from tests.e2e.jobs import Finish, Job, Start
from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import has_parts, held_after, parts

DOCUMENT = ("--order", "document", "-o", "input.join_memory_gib=0.25")
RESTORED = (*DOCUMENT, "-o", "output.order=input")


def moments(output: Path, scored: Path) -> list[tuple[int, Callable[[], bool]]]:
    """What a run is waited for before it is killed, in the order in which a job gets there.

    And how many units it may commit.
    """
    private = output / "_rgpt"

    def is_clustered() -> bool:
        return any(private.glob("pairs-*"))

    return [
        (0, lambda: any(private.glob("staging/joining-*")) or is_clustered()),
        (0, is_clustered),
        (0, lambda: any(private.glob("plan-*.json"))),
        *((number, partial(has_parts, scored, number)) for number in (1, 9, 20)),
    ]


def is_writing(output: Path) -> bool:
    """Whether rows are sorted and written back, or have just been."""
    return any(output.glob("_rgpt/staging/ordering-*")) or (output / "_SUCCESS").exists()


@pytest.mark.parametrize("restored", [False, True])
def test_a_killed_job_that_clusters_loses_and_doubles_no_row(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path, restored: bool
) -> None:
    output = tmp_path / "scored"
    scored = output / "_rgpt" / "scored" if restored else output
    command = job.score(output, *(RESTORED if restored else DOCUMENT))
    settled: dict[str, tuple[int, int, int]] = {}
    for num_units, is_there in moments(output, scored):
        process = start(command, held_at=held_after(num_units - len(settled)))
        process.wait_until(is_there)
        process.kill_group()
        assert not (output / "_SUCCESS").exists(), num_units
        # What was committed before is still the same file.
        found = identities(scored)
        assert settled.items() <= found.items(), num_units
        assert len(found) == num_units
        settled = found
        assert not restored or parts(output) == [], num_units
    process = start(command)
    assert process.wait() == 0, process.output
    assert settled.items() <= identities(scored).items()
    rows = read_output(output)
    if not restored:
        rows = rows.sort_by([("source_file", "ascending"), ("source_row", "ascending")])
    assert row_differences(clean_rows, rows) == []
    assert (output / "_SUCCESS").exists()


def test_a_job_that_is_killed_while_it_writes_rows_back_goes_on_there(
    job: Job, start: Start, finish: Finish, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    command = job.score(output, *RESTORED)
    assert finish(command)[0] == 0
    scored = identities(output / "_rgpt" / "scored")
    for keep in (0, 5, 23):
        # As a kill leaves it: some files are written, and nothing declares the job complete.
        (output / "_SUCCESS").unlink()
        for part in parts(output)[keep:]:
            part.unlink()
        process = start(command)
        process.wait_until(lambda: is_writing(output))
        process.kill_group()
        before = identities(output)
        code, said = finish(command)
        assert code == 0, said
        assert "of which 0 in this run" in said
        assert before.items() <= identities(output).items()
        assert row_differences(clean_rows, read_output(output)) == []
    assert identities(output / "_rgpt" / "scored") == scored
    assert not any((output / "_rgpt" / "staging").glob("part-*"))


def test_two_runs_that_cluster_at_once_give_each_row_once(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    first, second = (start([*job.score(output, *RESTORED), *job.slow]) for _ in range(2))
    assert (first.wait(), second.wait()) == (0, 0), first.output + second.output
    assert row_differences(clean_rows, read_output(output)) == []
