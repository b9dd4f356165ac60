"""Commands that look at an output folder: status, verify."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from rgpt_batch.commands.text import OutputFolder, format_rejected, print_facts
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from rgpt_batch.job.progress import Status
    from rgpt_batch.output import Store

# A job that runs renews its status every two seconds.
_SILENT_SECONDS = 30
_REPORT_SECONDS = 2.0


@click.command(short_help="Show how far a job is.", epilog="Example: rgpt-batch status scored/")
@click.argument("output", type=OutputFolder(exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(output: str, as_json: bool) -> int:
    """Show how far the job of an output folder is."""
    from rgpt_batch.formatting import format_seconds
    from rgpt_batch.output import open_store

    store = open_store(output)
    manifest = store.load_manifest() if store.has_manifest() else None
    if manifest is None:
        raise ConfigError(f"{output}: no job was planned here.")
    listing = store.listing()
    committed = listing.files
    recorded = _read_status(store)
    # A record may be older than what the folder shows.
    if listing.problem is None:
        recorded.state = "complete"
    elif recorded.state == "complete":
        recorded.state = "unfinished"
    if listing.success is not None:
        recorded.num_rejected = listing.success.num_rejected
    num_rows = sum(unit.num_rows for unit in manifest.units if unit.unit_id in committed)
    failed_units = {
        failure.unit_id: failure.cause
        for failure in store.read_failures()
        if failure.unit_id not in committed
    }
    facts = {
        **recorded.model_dump(exclude_unset=True),
        "num_units": len(manifest.units),
        "num_units_committed": len(committed),
        "num_rows": manifest.num_rows,
        "num_rows_committed": num_rows,
        "complete": listing.problem is None,
        "failed_units": failed_units,
    }
    if as_json:
        click.echo(json.dumps(facts))
        return 0
    print_facts(
        {
            "state": _format_state(recorded),
            "units": f"{len(committed):,} of {len(manifest.units):,} committed",
            "rows": f"{num_rows:,} of {manifest.num_rows:,}",
            "rejected": format_rejected(recorded.num_rejected)
            + ("" if recorded.state in ("complete", "incomplete") else " in the last run"),
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
    help="Largest difference of a sampled score. [default: float32 0.001, float16 0.1, else "
    "0.6; logits in 16 bit: times their standard deviation where that is above 1]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the sample.")
def verify(output: str, sample: int, tolerance: float | None, seed: int) -> int:
    """Check files, rows, ids and checksums of an output folder, and on request its scores."""
    from rgpt_batch.checks.verify import verify_output
    from rgpt_batch.formatting import format_count, with_unit
    from rgpt_batch.job.run import EXIT_INCOMPLETE

    _share_cores()
    result = verify_output(
        output,
        num_rescored=sample,
        tolerance=tolerance,
        seed=seed,
        report=_report_sometimes(),
    )
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
    return EXIT_INCOMPLETE if result.problems else 0


def _share_cores() -> None:
    """Let torch, which is not loaded yet, use the cores of this process, and no more than that.

    OpenMP's threads wait for each other in a loop: where other programs use the cores too, that
    takes several times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))


def _report_sometimes() -> Callable[[str], None]:
    """Return what prints progress, but not every line of it."""
    last = -_REPORT_SECONDS

    def report(message: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_SECONDS:
            last = time.monotonic()
            click.echo(f"{time.strftime('%H:%M:%S')} {message}", err=True)

    return report


def _read_status(store: Store) -> Status:
    from pydantic import ValidationError

    from rgpt_batch.job.progress import Status

    try:
        return Status.model_validate(store.read_status() or {"state": "planned"})
    except ValidationError:
        return Status(state="unknown: status.json is of another version of rgpt-batch")


def _format_state(recorded: Status) -> str:
    if recorded.state != "running":
        return recorded.state
    from rgpt_batch.formatting import format_seconds

    age = time.time() - recorded.updated_at
    if age > _SILENT_SECONDS:
        return f"no sign of life for {format_seconds(age)}; the same command resumes"
    return f"running: {recorded.activity}"
