"""The same kills for other systems: lost, doubled and changed rows, and what a bad row costs.

    python benchmarks/rivals.py [--system ray-data] [--kills 60] [--seed 0] [--write]

A job scores 2,000 rows (rival_jobs.py says how each system does it). It is killed with SIGKILL at
random moments: a process that scores, the command alone, or the command with all that scores for
it. Ray stays, as a cluster does. Whenever the command has ended, the same command is started again
at once, until it reports success; then each row is compared with an undisturbed run. Last, one row
raises, or kills what scores it.

Daft and all of Ray Data are no dependencies of the project:
pip install 'daft==0.7.26' 'ray[data]==2.60.0'
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from benchmarks.chaos import RESULTS, Differences, compare, kill  # noqa: E402
from benchmarks.rival_jobs import (  # noqa: E402
    ROWS_PER_UNIT,
    SYSTEMS,
    Row,
    command,
    read_rows,
    require_packages,
)
from benchmarks.rival_processes import (  # noqa: E402
    DEADLINE_SECONDS,
    Attempt,
    Cluster,
    rows_scored,
)
from benchmarks.rivals_table import keep, to_markdown  # noqa: E402

_NUM_SHARDS = 5
_NUM_ROWS = 2000
# A row in the middle of a shard; its text is longer than the 100 tokens that sitecustomize allows.
_BAD_ROW = 1010
_MAX_ERRORS_IN_A_ROW = 3


@dataclass
class Campaign:
    """What the kills of one system have led to."""

    jobs: int = 0
    kills_of_all: int = 0
    kills_of_the_command: int = 0
    kills_of_a_worker: int = 0
    rows_lost: int = 0
    rows_doubled: int = 0
    rows_changed: int = 0
    false_successes: int = 0
    jobs_stuck: int = 0
    jobs_given_up: int = 0
    errors: int = 0
    rows_wanted: int = 0
    rows_scored: int = 0
    clean_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """All of them."""
        return self.kills_of_all + self.kills_of_the_command + self.kills_of_a_worker

    def note_end(self, found: Differences) -> None:
        """Note what is wrong with the output of a job that reports success."""
        self.rows_lost += found.lost
        self.rows_doubled += found.doubled
        self.rows_changed += found.changed
        self.false_successes += found != Differences(0, 0, 0)


@dataclass(frozen=True)
class BadRow:
    """What has become of a job with one bad row.

    Attributes:
        row: What it does: `raise` or `kill`.
        setting: `fail`, as the system does unless told otherwise, or `skip`.
        exit_codes: Of the command and its repetitions; None where it did not end by the deadline.
        good_rows_scored: Of all but one.
        rows_without_score: Rows that the output has, with null for a score.
        rows_missing: Rows that the output does not have.
        rows_doubled: Good rows that are there more than once.
        rows_changed: Good rows with another score.
    """

    row: str
    setting: str
    exit_codes: list[int | None]
    good_rows_scored: int
    rows_without_score: int
    rows_missing: int
    rows_doubled: int
    rows_changed: int


def by_id(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Arrange rows as `compare` takes them."""
    found: dict[str, list[str]] = {}
    for row_id, score in rows:
        found.setdefault(row_id, []).append(repr(score))
    return found


def bad_id() -> str:
    """Name the bad row."""
    return f"row-{_BAD_ROW:05d}"


def write_input(folder: Path, *, bad_row: bool = False) -> Path:
    """Write the pairs that every job scores."""
    folder.mkdir()
    per_shard = _NUM_ROWS // _NUM_SHARDS
    for shard in range(_NUM_SHARDS):
        rows = range(shard * per_shard, (shard + 1) * per_shard)
        words = [200 if bad_row and row == _BAD_ROW else row % 11 for row in rows]
        table = pa.table(
            {
                "id": [f"row-{row:05d}" for row in rows],
                "query_id": [f"q{row % 9}" for row in rows],
                "doc_id": [f"d{row}" for row in rows],
                "query": [f"what is number {row % 9}" for row in rows],
                "document": [
                    f"Number {row} is told " + "again and " * count
                    for row, count in zip(rows, words, strict=True)
                ],
            }
        )
        pq.write_table(table, folder / f"pairs-{shard}.parquet", row_group_size=ROWS_PER_UNIT)
    return folder


class Rival:
    """One system, in a folder of its own."""

    def __init__(self, system: str, folder: Path, model: Path, seed: int) -> None:
        self._system = system
        self._folder = folder
        self._model = model
        self._chooser = random.Random(seed)
        self._num_jobs = 0
        self._attempts: list[Attempt] = []
        self._clean: set[Row] = set()
        self._cluster: Cluster | None = None
        self._is_over: Callable[[], bool] = lambda: True

    def kill_jobs(self, num_kills: int, budget_seconds: float) -> Campaign:
        """Kill until there are so many or the time is over; then let the last job end."""
        self._is_over = lambda: found.kills >= num_kills or time.monotonic() > ends
        ends = time.monotonic() + budget_seconds
        found, pairs, job = Campaign(), write_input(self._folder / "pairs"), self._new_job()
        self._use_cluster("")
        started = time.monotonic()
        attempt = self._start(job, pairs)
        attempt.wait(until_it_scores=True)
        start_seconds = time.monotonic() - started
        code = attempt.wait()
        found.clean_seconds = time.monotonic() - started
        self._clean = set(read_rows(self._system, job))
        if code != 0 or len(self._clean) != _NUM_ROWS:
            log = (job / "log").read_text(errors="replace")[-3000:]
            raise SystemExit(f"the undisturbed run failed with {code}:\n{log}")
        durations = (start_seconds, found.clean_seconds - start_seconds)
        while not self._is_over():
            self._kill_one_job(self._new_job(), pairs, found, durations)
            found.seconds = time.monotonic() - started
            print(f"{self._system}: {found}", file=sys.stderr, flush=True)
        return found

    def _kill_one_job(
        self, job: Path, pairs: Path, found: Campaign, durations: tuple[float, float]
    ) -> None:
        code, num_errors, scored_before = None, 0, self._num_scored()
        try:
            while code != 0 and num_errors < _MAX_ERRORS_IN_A_ROW:
                code = self._disturb(self._start(job, pairs), found, durations)
                num_errors = num_errors + 1 if code else 0
                found.errors += bool(code)
        except TimeoutError:
            found.jobs_stuck += 1
        finally:
            self._end_attempts()
        found.jobs_given_up += bool(code)
        if code == 0:
            found.jobs += 1
            found.rows_wanted += _NUM_ROWS
            found.rows_scored += self._num_scored() - scored_before
            found.note_end(compare(by_id(self._clean), by_id(read_rows(self._system, job))))

    def _disturb(
        self, attempt: Attempt, found: Campaign, durations: tuple[float, float]
    ) -> int | None:
        """Kill at random moments; the exit code, or None where the command was killed.

        Raises:
            TimeoutError: It does not end.
        """
        start_seconds, work_seconds = durations
        # Else most attempts would end before they are killed, or a job would never end.
        longest = work_seconds / 2
        # One in four while it starts, the others from its first score on.
        is_early = self._chooser.random() < 0.25
        share = self._chooser.random()
        if not is_early:
            attempt.wait(until_it_scores=True)
        seconds = share * (start_seconds if is_early else longest)
        while (code := attempt.wait(seconds)) is None:
            if self._is_over():
                return attempt.wait()
            kind = self._chooser.choice(["all", "command", "worker", "worker", "worker"])
            seconds = self._chooser.random() * longest
            workers = attempt.workers()
            if kind == "worker" and workers == [attempt.pid]:
                kind = "command"
            if kind != "worker":
                found.kills_of_all += kind == "all"
                found.kills_of_the_command += kind == "command"
                (attempt.kill_all if kind == "all" else attempt.kill_command)()
                return None
            if workers:
                kill(self._chooser.choice(workers))
                found.kills_of_a_worker += 1
                attempt.deadline = time.monotonic() + DEADLINE_SECONDS
        return code

    def meet_bad_rows(self) -> list[BadRow]:
        """Meet a row that raises and one that kills, with each setting that the system has."""
        pairs = write_input(self._folder / "bad-pairs", bad_row=True)
        settings = ["fail"] if self._system.startswith("rgpt_batch") else ["fail", "skip"]
        found = []
        for row in ("raise", "kill"):
            self._use_cluster(row)
            for setting in settings:
                found.append(self._meet_bad_row(pairs, row, setting))
                print(f"{self._system}: {found[-1]}", file=sys.stderr, flush=True)
        return found

    def _meet_bad_row(self, pairs: Path, row: str, setting: str) -> BadRow:
        job = self._new_job()
        codes: list[int | None] = []
        while len(codes) < _MAX_ERRORS_IN_A_ROW and 0 not in codes and None not in codes:
            try:
                codes.append(self._start(job, pairs, setting).wait())
            except TimeoutError:
                codes.append(None)
            self._end_attempts()
        there = list(read_rows(self._system, job))
        scored = [item for item in there if item[1] is not None]
        expected = by_id(item for item in self._clean if item[0] != bad_id())
        different = compare(expected, by_id(scored))
        return BadRow(
            row=row,
            setting=setting,
            exit_codes=codes,
            good_rows_scored=len(expected) - different.lost,
            rows_without_score=len(there) - len(scored),
            rows_missing=_NUM_ROWS - len({row_id for row_id, _ in there}),
            rows_doubled=different.doubled,
            rows_changed=different.changed,
        )

    def _new_job(self) -> Path:
        self._num_jobs += 1
        job = self._folder / f"job-{self._num_jobs}"
        job.mkdir()
        return job

    def _start(self, job: Path, pairs: Path, setting: str = "fail") -> Attempt:
        assert self._cluster is not None
        line = command(self._system, pairs, job, self._model, setting)
        self._attempts.append(Attempt(line, job, self._cluster))
        return self._attempts[-1]

    def _num_scored(self) -> int:
        assert self._cluster is not None
        return rows_scored(self._cluster.journal).total()

    def _use_cluster(self, bad_row: str) -> None:
        self.stop()
        folder = self._folder / f"cluster-{bad_row}"
        self._cluster = Cluster(folder, bad_row, is_needed=self._system != "rgpt_batch-local")

    def _end_attempts(self) -> None:
        """End what is left of a job, also what a killed command has left behind."""
        while self._attempts:
            self._attempts.pop().kill_all()

    def stop(self) -> None:
        """End everything."""
        self._end_attempts()
        if self._cluster is not None:
            self._cluster.stop()


def main() -> int:
    """Run the campaigns and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--system", choices=SYSTEMS, action="append", help="(all)")
    parser.add_argument("--kills", type=int, default=60, help="of each system (60)")
    parser.add_argument("--budget", type=float, default=3600, help="seconds per system (3600)")
    parser.add_argument("--seed", type=int, default=0, help="chooses moments and victims (0)")
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "smollm2-135m")
    parser.add_argument("--no-bad-rows", action="store_true", help="kill only")
    parser.add_argument("--write", action="store_true", help="also write benchmarks/results/")
    given = parser.parse_args()
    systems = given.system or SYSTEMS
    versions = {system: require_packages(system) for system in systems}
    results = []
    for system in systems:
        with tempfile.TemporaryDirectory(prefix="rivals") as folder:
            rival = Rival(system, Path(folder), given.model.absolute(), given.seed)
            try:
                campaign = rival.kill_jobs(given.kills, given.budget)
                bad_rows = [] if given.no_bad_rows else rival.meet_bad_rows()
            finally:
                rival.stop()
        results.append(
            {
                "system": system,
                "versions": versions[system],
                "seed": given.seed,
                "campaign": asdict(campaign),
                "bad_rows": [asdict(row) for row in bad_rows],
            }
        )
        print(json.dumps(results[-1]), flush=True)
        if given.write:
            keep(RESULTS / f"{time.strftime('%Y-%m-%d')}-rivals.jsonl", results[-1])
    print(to_markdown(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
