"""Kill jobs at random moments until enough are killed, and compare what comes out with a clean run.

    python benchmarks/chaos.py [--kills 1000] [--executor local|ray] [--engine fake|vllm] [--seed 0]

Each round scores the same input into a new folder: the command is started and killed with SIGKILL,
over and over, until it comes to its end; then every row is compared with the output of a run that
nothing disturbed. With Ray, workers are killed too. All the while another process reads whatever
is visible in the output folders. `--writer naive` is the control: a writer that streams to the
final name, which must be caught. The exit code is 0 if nothing was lost, doubled, changed,
unreadable or declared complete too early.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch import JobConfig, load_config
from rgpt_batch.executors.unit_runner import UnitRunner
from rgpt_batch.output.score_file import read_footer
from rgpt_batch.records import UnitReport, WorkUnit

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_ROWS_PER_UNIT = 8
_NUM_SHARDS = 4
_NUM_ROWS = 240
_UNITS_IN_FLIGHT = 3
# An undisturbed run takes this long at most, with Ray and vLLM on a busy machine.
_DEADLINE_SECONDS = 300.0


@dataclass
class Findings:
    """What happened, and what must not have happened."""

    kills: int = 0
    jobs_completed: int = 0
    rows_compared: int = 0
    files_read: int = 0
    units_scored_again: int | None = None
    rows_scored_again: int | None = None
    most_units_lost_by_a_kill: int | None = None
    rows_lost: int = field(default=0, metadata={"bad": True})
    rows_doubled: int = field(default=0, metadata={"bad": True})
    rows_changed: int = field(default=0, metadata={"bad": True})
    unreadable_files: int = field(default=0, metadata={"bad": True})
    false_successes: int = field(default=0, metadata={"bad": True})
    jobs_stuck: int = field(default=0, metadata={"bad": True})
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether nothing happened that must not."""
        bad = sum(getattr(self, item.name) for item in fields(self) if item.metadata.get("bad"))
        return bad == 0 and (self.most_units_lost_by_a_kill or 0) <= _UNITS_IN_FLIGHT


def write_input(folder: Path) -> Path:
    """Write the pairs that every round scores."""
    folder.mkdir()
    per_shard = _NUM_ROWS // _NUM_SHARDS
    for shard in range(_NUM_SHARDS):
        rows = range(shard * per_shard, (shard + 1) * per_shard)
        table = pa.table(
            {
                "query_id": [f"q{row % 9}" for row in rows],
                "doc_id": [f"d{row}" for row in rows],
                "query": ["" if row % 50 == 7 else f"what is number {row % 9}" for row in rows],
                "document": [f"Number {row} is told " + "again and " * (row % 11) for row in rows],
            }
        )
        pq.write_table(table, folder / f"pairs-{shard}.parquet", row_group_size=_ROWS_PER_UNIT * 2)
    return folder


def read_rows(output: Path) -> dict[tuple[str, int], list[str]]:
    """Read all committed rows of a folder: file and row of the input → the whole rows."""
    rows: dict[tuple[str, int], list[str]] = {}
    for part in sorted(output.glob("part-*.parquet")):
        for row in pq.read_table(part).to_pylist():
            rows.setdefault((row["source_file"], row["source_row"]), []).append(repr(row))
    return rows


def run_job_in_child(
    config: JobConfig, pairs: str, output: str, journal: str, writer: str, log_path: str
) -> None:
    """Be the process that is killed: run the job, and note the rows of each unit that is begun."""
    os.setsid()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    from rgpt_batch.job import score_units
    from rgpt_batch.job.run_job import run_job

    if config.executor.kind == "local":
        note = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        class NotingRunner(UnitRunner):
            """Notes the unit's rows before it begins."""

            def run(
                self, unit: WorkUnit, crashing_rows: frozenset[int] = frozenset()
            ) -> UnitReport:
                """Note them first."""
                os.write(note, f"{unit.num_rows}\n".encode())
                return super().run(unit, crashing_rows)

        vars(score_units)["UnitRunner"] = NotingRunner
    if writer == "naive":
        from rgpt_batch.output import LocalStore

        type.__setattr__(LocalStore, "commit", _stream_to_the_final_name)
    os._exit(run_job(config, [pairs], output, quiet=True).exit_code)


@dataclass(frozen=True, slots=True)
class Differences:
    """Rows that are not as they should be.

    Attributes:
        lost: Rows that are missing.
        doubled: Rows that are there too often, once for each time, and rows that nobody expects.
        changed: Rows that are there as often as they should be, and hold something else.
    """

    lost: int
    doubled: int
    changed: int


def compare(expected: Mapping[Any, list[str]], there: Mapping[Any, list[str]]) -> Differences:
    """Compare rows, by what identifies them, with those that an undisturbed run has written."""
    wanted = Counter({key: len(rows) for key, rows in expected.items()})
    found = Counter({key: len(rows) for key, rows in there.items()})
    return Differences(
        lost=(wanted - found).total(),
        doubled=(found - wanted).total(),
        changed=sum(
            there[key] != rows for key, rows in expected.items() if found[key] == wanted[key]
        ),
    )


def _stream_to_the_final_name(
    store: Any, unit_id: str, attempt: str, content: bytes | memoryview
) -> bool:
    """Commit as one should not: what is written so far is there for all to see."""
    table = pq.read_table(pa.BufferReader(content))
    path = Path(store.location) / f"part-{unit_id}.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        for row in range(table.num_rows):
            writer.write_table(table.slice(row, 1))
            time.sleep(0.001)
    return True


def watch(folder: str, stop: Any, found: Any) -> None:
    """Be the reader: read each part file as soon as it is visible; report those that are not whole.

    Args:
        folder: Holds the output folders.
        stop: An event.
        found: A queue; gets the number of files read and of those that were not whole.
    """
    seen: set[tuple[str, int]] = set()
    num_unreadable = 0
    while not stop.is_set():
        for path in Path(folder).glob("*/part-*.parquet"):
            with contextlib.suppress(FileNotFoundError):
                key = (str(path), path.stat().st_ino)
                if key in seen:
                    continue
                seen.add(key)
                # Opened once: the folder may be gone before the second time.
                with path.open("rb") as stream:
                    num_unreadable += not _is_whole(stream.read())
        time.sleep(0.002)
    found.put((len(seen), num_unreadable))


def _is_whole(content: bytes) -> bool:
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        footer = json.loads(table.schema.metadata[b"rgpt_batch"])
    except (OSError, pa.ArrowException, KeyError, TypeError):
        return False
    return bool(footer["num_rows"] == table.num_rows)


class Chaos:
    """A campaign of kills.

    Args:
        config: Its executor and engine are what is tested.
        folder: For input, outputs and logs.
        seed: Chooses the moments and the victims.
        writer: `ours` or `naive`.
    """

    def __init__(self, config: JobConfig, folder: Path, seed: int, writer: str = "ours") -> None:
        self.findings = Findings()
        self._config = config
        self._folder = folder
        self._outputs = folder / "outputs"
        self._chooser = random.Random(seed)
        self._writer = writer
        self._pairs = write_input(folder / "pairs")
        # Forked from a process that has imported everything, a run starts in milliseconds.
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            [
                "rgpt_batch.job.run_job",
                "rgpt_batch.executors.local",
                "rgpt_batch.engines.fake",
                "huggingface_hub.hf_api",
                "transformers.models.auto.tokenization_auto",
                "transformers.tokenization_utils_tokenizers",
                "torch",
            ]
        )

    def run(self, num_kills: int) -> Findings:
        """Kill until there are so many."""
        clean = self._folder / "clean"
        self._start(clean, "ours").join()
        started = time.monotonic()
        process = self._start(self._folder / "timed", "ours")
        process.join(_DEADLINE_SECONDS)
        clean_seconds = time.monotonic() - started
        expected = read_rows(clean)
        if len(expected) != _NUM_ROWS or read_rows(self._folder / "timed") != expected:
            raise SystemExit(f"the undisturbed run failed: {self._log().read_text()}")
        self._outputs.mkdir()
        stop, found = self._context.Event(), self._context.Queue()
        reader = self._context.Process(target=watch, args=(str(self._outputs), stop, found))
        reader.start()
        started = time.monotonic()
        while self.findings.kills < num_kills:
            self._round(expected, clean_seconds)
        self.findings.seconds = time.monotonic() - started
        stop.set()
        self.findings.files_read, num_unreadable = found.get(timeout=60)
        self.findings.unreadable_files += num_unreadable
        reader.join()
        return self.findings

    def _round(self, expected: dict[tuple[str, int], list[str]], clean_seconds: float) -> None:
        """Kill one job until it completes, and look at what it has written."""
        output = self._outputs / f"round-{time.monotonic_ns()}"
        code = None
        while code is None:
            begun, there = self._begun(), _committed(output)
            process = self._start(output, self._writer)
            code = self._end(process, clean_seconds)
            if code is None:
                self.findings.kills += 1
                if self._config.executor.kind == "local":
                    # Units, as their numbers of rows: begun by this process, and not committed.
                    self._note_waste(self._begun() - begun - (_committed(output) - there))
                is_early = (output / "_SUCCESS").exists() and read_rows(output) != expected
                self.findings.false_successes += is_early
        if code != 0:
            self.findings.jobs_stuck += 1
            self.findings.unreadable_files += sum(
                not _is_whole(part.read_bytes()) for part in output.glob("part-*.parquet")
            )
            return
        self.findings.jobs_completed += 1
        self.findings.rows_compared += len(expected)
        self._compare(expected, read_rows(output))
        for part in output.glob("part-*.parquet"):
            read_footer(str(part))

    def _note_waste(self, lost: Counter[int]) -> None:
        findings = self.findings
        num_units = lost.total()
        num_rows = sum(rows * count for rows, count in lost.items())
        findings.units_scored_again = (findings.units_scored_again or 0) + num_units
        findings.rows_scored_again = (findings.rows_scored_again or 0) + num_rows
        findings.most_units_lost_by_a_kill = max(findings.most_units_lost_by_a_kill or 0, num_units)

    def _compare(
        self, expected: dict[tuple[str, int], list[str]], there: dict[tuple[str, int], list[str]]
    ) -> None:
        found = compare(expected, there)
        self.findings.rows_lost += found.lost
        self.findings.rows_doubled += found.doubled
        self.findings.rows_changed += found.changed

    def _start(self, output: Path, writer: str) -> Any:
        process = self._context.Process(
            target=run_job_in_child,
            args=(
                self._config,
                str(self._pairs),
                str(output),
                str(self._folder / "journal"),
                writer,
                str(self._log()),
            ),
        )
        process.start()
        return process

    def _end(self, process: Any, clean_seconds: float) -> int | None:
        """Kill the process at some moment; its exit code where it came to its end before that."""
        kills_workers = self._config.executor.kind == "ray"
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while True:
            process.join(self._chooser.uniform(0, clean_seconds))
            if process.exitcode is not None:
                return int(process.exitcode)
            victims = session_of(process.pid)
            workers = [pid for pid, name in victims.items() if name.startswith("ray::WorkerActor")]
            if not kills_workers or self._chooser.random() < 0.5:
                for pid in victims:
                    kill(pid)
                process.join()
                return None
            if workers:
                kill(self._chooser.choice(workers))
                self.findings.kills += 1
            if time.monotonic() > deadline:
                raise SystemExit(f"a job hangs: {self._log().read_text()}")

    def _begun(self) -> Counter[int]:
        """Count the units that were begun in all jobs so far, by their number of rows."""
        journal = self._folder / "journal"
        return Counter(map(int, journal.read_text().split())) if journal.exists() else Counter()

    def _log(self) -> Path:
        return self._folder / "log"


def _committed(output: Path) -> Counter[int]:
    """Count the units that are committed, by their number of rows."""
    parts = output.glob("part-*.parquet")
    return Counter(
        pq.read_metadata(part).num_rows for part in parts if _is_whole(part.read_bytes())
    )


def session_of(leader: int) -> dict[int, str]:
    """Find the processes of a session: id → command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # After the name in brackets: state, parent, process group, session.
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            if (status[0] != "Z" and int(status[3]) == leader) or int(folder.name) == leader:
                name = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = name.decode(errors="replace")
    return found


def kill(pid: int) -> None:
    """SIGKILL a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def chaos_config(model: Path, executor: str, engine: str) -> JobConfig:
    """Configure a job of many small units."""
    options = {
        "model.name": model,
        "executor.kind": executor,
        "executor.num_workers": 2 if executor == "ray" else 1,
        "executor.units_in_flight": _UNITS_IN_FLIGHT,
        "units.max_rows": _ROWS_PER_UNIT,
        "output.source": "true",
        "engine.method": "fake" if engine == "fake" else "prompt-logprobs",
        "engine.fake_seconds_per_pair": 0.02 if executor == "ray" else 0.001,
    }
    if engine == "vllm":
        options |= {
            "model.dtype": "float32",
            "protocol.max_length": 128,
            "engine.kv_cache_bytes": 64 * 2**20,
            "engine.max_num_seqs": 8,
            "engine.max_num_batched_tokens": 128,
            "engine.enforce_eager": "true",
        }
    return load_config(None, tuple(f"{name}={value}" for name, value in options.items()))


def format_findings(findings: Findings) -> str:
    """Write the findings as the rows of a Markdown table."""
    lines = ["| | |", "|---|---|"]
    for name, value in asdict(findings).items():
        shown = "not measured" if value is None else f"{round(value):,}"
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run a campaign and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--engine", choices=["fake", "vllm"], default="fake")
    parser.add_argument("--writer", choices=["ours", "naive"], default="ours")
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "smollm2-135m")
    parser.add_argument("--write", action="store_true", help="also write benchmarks/results/")
    arguments = parser.parse_args()
    config = chaos_config(arguments.model.absolute(), arguments.executor, arguments.engine)
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        chaos = Chaos(config, Path(folder), arguments.seed, arguments.writer)
        findings = chaos.run(arguments.kills)
    table = format_findings(findings)
    print(table)
    if arguments.write:
        title = f"# Kills: {arguments.executor} executor, {arguments.engine} engine"
        name = f"{time.strftime('%Y-%m-%d')}-chaos-{arguments.executor}-{arguments.engine}.md"
        (RESULTS / name).write_text(f"{title}\n\nSeed {arguments.seed}.\n\n{table}")
    return 0 if findings.is_clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
