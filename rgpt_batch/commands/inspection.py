"""Commands that look at an output folder: status, verify."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rgpt_batch.commands.engine_output import engine_output_kept
from rgpt_batch.commands.text import (
    OutputFolder,
    format_rejected,
    json_option,
    print_facts,
    print_json,
)
from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError

if TYPE_CHECKING:
    from rgpt_batch.job.progress import Status
    from rgpt_batch.job.run import SignOfLife
    from rgpt_batch.output import Store
    from rgpt_batch.output.store import CommittedFile

# A job that runs renews its status every two seconds.
_SILENT_SECONDS = 30
_REPORT_SECONDS = 2.0


@click.command(short_help="Show how far a job is.", epilog="Example: rgpt-batch status scored/")
@click.argument("output", type=OutputFolder(exists=True, file_okay=False))
@json_option
def status(output: str, as_json: bool) -> int:
    """Show how far the job of an output folder is."""
    from rgpt_batch.formatting import format_seconds
    from rgpt_batch.job.restore import scored_store
    from rgpt_batch.output import open_store

    store = open_store(output)
    manifest = store.load_manifest() if store.has_manifest() else None
    if manifest is None:
        raise ConfigError(f"{output}: no job was planned here.")
    listing = store.listing()
    committed, units = listing.files, manifest.units
    if manifest.clustered and listing.problem is not None:
        # What is there of the output tells nothing until all is scored.
        committed, units = scored_store(store, manifest).committed(), manifest.clustered
    recorded = _read_status(store)
    # A record may be older than what the folder shows.
    if listing.problem is None:
        recorded.state = "complete"
    elif recorded.state == "complete":
        recorded.state = "unfinished"
    if listing.success is not None:
        recorded.num_rejected = listing.success.num_rejected
    recorded.engines = recorded.engines or _engine_of(committed)
    num_rows = sum(unit.num_rows for unit in units if unit.unit_id in committed)
    failed_units = {
        failure.unit_id: failure.cause
        for failure in store.read_failures()
        if failure.unit_id not in committed
    }
    facts = {
        **recorded.model_dump(mode="json", exclude_unset=True),
        "num_units": len(units),
        "num_units_committed": len(committed),
        "num_rows": manifest.num_rows,
        "num_rows_committed": num_rows,
        "complete": listing.problem is None,
        "failed_units": failed_units,
    }
    processes = [] if listing.problem is None else _read_processes(store)
    if processes:
        facts["processes"] = [process.model_dump() for process in processes]
    if as_json:
        print_json(facts)
        return 0
    print_facts(
        {
            "state": _format_state(recorded),
            "units": f"{len(committed):,} of {len(units):,} committed",
            "rows": f"{num_rows:,} of {manifest.num_rows:,}",
            "rejected": format_rejected(recorded.num_rejected)
            + ("" if recorded.state in ("complete", "incomplete") else " in the last run"),
            **({"engine": _format_engines(recorded.engines)} if recorded.engines else {}),
        }
    )
    if listing.is_declared and listing.problem is not None:
        print_facts({"note": f"{listing.problem}. The same command mends that."})
    if recorded.state == "running" and recorded.eta_seconds is not None:
        print_facts(
            {
                "speed": f"{recorded.pairs_per_second:,.1f} pairs/s, "
                f"{format_seconds(recorded.eta_seconds)} left"
            }
        )
    for process in processes:
        click.echo(f"process      {process.name}: {_format_process(process)}")
    for unit_id, cause in failed_units.items():
        click.echo(f"failed       unit {unit_id}: {cause}")
    return 0


@click.command(
    short_help="Check an output folder file by file.",
    epilog="Example: rgpt-batch verify scored/ --sample 50",
)
@click.argument("output", type=OutputFolder(exists=True, file_okay=False))
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random rows to score again with the float32 transformers reference.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    help="Largest difference of a sampled score. [default: float32 0.001, float16 0.1, else 0.6]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the sample.")
@json_option
def verify(output: str, sample: int, tolerance: float | None, seed: int, as_json: bool) -> int:
    """Check files, rows, ids and checksums of an output folder, and on request its scores."""
    from rgpt_batch.checks.verify import verify_output
    from rgpt_batch.formatting import format_count, with_unit
    from rgpt_batch.job.run import EXIT_INCOMPLETE

    _share_cores()
    with engine_output_kept("verify") as terminal:
        result = verify_output(
            output,
            num_rescored=sample,
            tolerance=tolerance,
            seed=seed,
            report=_sometimes(terminal.say),
        )
    exit_code = EXIT_INCOMPLETE if result.problems else 0
    if as_json:
        print_json({**asdict(result), "exit_code": exit_code})
        return exit_code
    for problem in result.problems:
        click.echo(f"problem      {problem}")
    facts = {
        "checked": f"{format_count(result.num_files, 'file')}, "
        f"{format_count(result.num_rows, 'row')}"
    }
    if result.num_rescored:
        facts["rescored"] = (
            f"{result.num_rescored:,} rows, largest difference "
            f"{with_unit(f'{result.max_score_error:.2g}', result.score_unit)}"
        )
    facts["result"] = (
        format_count(len(result.problems), "problem") if result.problems else "all is well"
    )
    print_facts(facts)
    return exit_code


def _share_cores() -> None:
    """Let torch, which is not loaded yet, use the cores of this process, and no more than that.

    OpenMP's threads wait for each other in a loop: where other programs use the cores too, that
    takes several times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))


def _sometimes(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return what says progress, but not every line of it."""
    last = -_REPORT_SECONDS

    def report(message: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_SECONDS:
            last = time.monotonic()
            say(message)

    return report


def _read_status(store: Store) -> Status:
    from pydantic import ValidationError

    from rgpt_batch.job.progress import Status

    try:
        return Status.model_validate(store.read_status() or {"state": "planned"})
    except ValidationError:
        return Status(state="unknown: status.json is of another version of rgpt-batch")


def _engine_of(committed: Mapping[str, CommittedFile]) -> tuple[str, ...]:
    """Return the method that scored some file: the last run may have scored none."""
    from rgpt_batch.output.score_file import read_footer

    for file in committed.values():
        # Whether files are sound is for verify to tell.
        with suppress(ShardError, ManifestMismatch):
            return (read_footer(file.path)[0].engine,)
    return ()


def _format_engines(engines: Sequence[str]) -> str:
    return ", ".join(engines) + (": the scores are invented" if "fake" in engines else "")


def _read_processes(store: Store) -> list[SignOfLife]:
    """Return the processes that share the job; records of other versions are left out."""
    from pydantic import ValidationError

    from rgpt_batch.job.run import SignOfLife

    found = []
    for record in store.read_processes():
        with suppress(ValidationError):
            found.append(SignOfLife.model_validate(record))
    return found


def _format_process(process: SignOfLife) -> str:
    from rgpt_batch.formatting import format_seconds

    age = time.time() - process.updated_at
    doing = process.activity
    if age > _SILENT_SECONDS:
        doing = f"no sign of life for {format_seconds(age)}"
    return f"{doing}, {process.num_rows:,} rows, {process.pairs_per_second:,.1f} pairs/s"


def _format_state(recorded: Status) -> str:
    if recorded.state != "running":
        return recorded.state
    from rgpt_batch.formatting import format_seconds

    age = time.time() - recorded.updated_at
    if age > _SILENT_SECONDS:
        return f"no sign of life for {format_seconds(age)}; the same command resumes"
    return f"running: {recorded.activity}"
