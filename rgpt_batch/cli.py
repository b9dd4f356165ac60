"""The command line. Heavy modules are imported inside the commands, so that --help is instant."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rgpt_batch import __version__
from rgpt_batch.errors import (
    ConfigError,
    Interrupted,
    ManifestMismatch,
    RgptBatchError,
    ShardError,
)

if TYPE_CHECKING:
    from rgpt_batch.config import JobConfig
    from rgpt_batch.job_run import JobSummary
    from rgpt_batch.store import Store

EXIT_CODES = """\b
Exit codes:
  0  complete
  1  stopped by an error of engine or storage; the same command resumes
  2  wrong usage, configuration, input or output folder
  3  finished, but units failed, too many rows were rejected, or a check found a problem
  130, 143  stopped by Ctrl-C or SIGTERM; the same command resumes
"""

# A job that runs renews its status every two seconds.
_SILENT_SECONDS = 30

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _job_options(command: _Command) -> _Command:
    for option in reversed(
        (
            click.option(
                "--config", "-c", type=click.Path(), help="YAML configuration. [default: none]"
            ),
            click.option(
                "--input",
                "-i",
                "inputs",
                multiple=True,
                required=True,
                help="Parquet file, folder or glob pattern; may be repeated.",
            ),
            click.option("--output", required=True, type=click.Path(), help="Output folder."),
            click.option(
                "-o",
                "overrides",
                multiple=True,
                metavar="KEY=VALUE",
                help="Override an option of the configuration, e.g. -o model.dtype=float32.",
            ),
            click.option("--model", help="Folder or hub id; same as -o model.name=…"),
            click.option(
                "--protocol",
                type=click.Choice(["card", "eval", "eval-arguana"]),
                help="Same as -o protocol.name=…  [default: card]",
            ),
            click.option(
                "--max-length",
                type=click.IntRange(min=1),
                help="Tokens per prompt; longer documents are cut. "
                "[default: card 2048, eval 512, eval-arguana 544]",
            ),
            click.option(
                "--pass-through",
                metavar="COLUMN,…",
                help="Input columns to copy to the output. [default: none]",
            ),
        )
    ):
        command = option(command)
    return command


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rgpt-batch")
def cli() -> None:
    """Score query-document pairs by query likelihood: Parquet in, scored Parquet out."""


@cli.command(
    epilog="Example: rgpt-batch score -c configs/bloom-560m-h100.yaml -i pairs/ --output scored/"
)
@_job_options
@click.option(
    "--executor",
    type=click.Choice(["ray", "local"]),
    help="Where engines run; same as -o executor.kind=…  [default: ray]",
)
@click.option(
    "--on-change",
    type=click.Choice(["refuse", "overwrite"]),
    default="refuse",
    show_default=True,
    help="What to do if the output folder holds the scores of another job.",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def score(
    config: str | None,
    inputs: tuple[str, ...],
    output: str,
    executor: str | None,
    on_change: Any,
    quiet: bool,
    **shortcuts: Any,
) -> int:
    """Score every pair of the input; resume where an earlier run stopped."""
    from rgpt_batch.job import run_job

    job_config = _load(config, executor=executor, **shortcuts)
    summary = run_job(job_config, inputs, output, on_change=on_change, quiet=quiet)
    _print_summary(summary)
    return summary.exit_code


@cli.command(
    epilog="Example: rgpt-batch plan -c configs/bloom-7b-h100.yaml -i pairs/ --output scored/ "
    "--pairs-per-second 700 --workers 8 --price-per-hour 2.50"
)
@_job_options
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Rows to tokenise.",
)
@click.option(
    "--pairs-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Measured speed of one worker. [default: that of the output folder's last run]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Engines that will run at once.",
)
@click.option(
    "--price-per-hour",
    type=click.FloatRange(min=0),
    help="Price of one worker's GPUs for an hour, any currency. [default: no cost is shown]",
)
def plan(
    config: str | None,
    inputs: tuple[str, ...],
    output: str,
    sample: int,
    pairs_per_second: float | None,
    workers: int,
    price_per_hour: float | None,
    **shortcuts: Any,
) -> int:
    """Show units, token counts, time and cost of a job without running it."""
    from rgpt_batch.estimate import sample_tokens
    from rgpt_batch.job import plan_job
    from rgpt_batch.progress import format_seconds
    from rgpt_batch.store import open_store

    job_config, manifest = plan_job(_load(config, **shortcuts), inputs, output)
    tokens = sample_tokens(job_config, manifest, sample)
    store = open_store(output)
    planned = store.load_manifest()
    is_ours = planned is not None and planned.fingerprint == manifest.fingerprint
    committed = store.committed() if is_ours else {}
    num_rows_left = sum(u.num_rows for u in manifest.units if u.unit_id not in committed)
    shards = {segment.path for unit in manifest.units for segment in unit.segments}
    _print_facts(
        {
            "input": f"{len(shards):,} shards, {manifest.num_rows:,} rows",
            "units": f"{len(manifest.units):,}, of which {len(committed):,} are committed already; "
            f"largest {max(unit.num_rows for unit in manifest.units):,} rows",
            "prompts": f"{tokens.mean_prompt_tokens:.1f} tokens, {tokens.mean_query_tokens:.1f} of "
            f"them the query's (mean of {tokens.num_rows:,} sampled rows)",
            "truncated": f"{tokens.truncated_fraction:.2%} of the sampled rows, at "
            f"{job_config.protocol.max_tokens:,} tokens",
            "rejected": f"{tokens.rejected_fraction:.2%} of the sampled rows",
            "fingerprint": manifest.fingerprint,
        }
    )
    if planned is not None and not is_ours:
        click.echo(f"note         {output} holds another job; score would ask for --on-change")
    if pairs_per_second is None:
        pairs_per_second = _last_speed(store)
    if pairs_per_second is None:
        click.echo("time         unknown: give --pairs-per-second, or score a sample first")
        return 0
    worker_seconds = num_rows_left / pairs_per_second
    cost = "" if price_per_hour is None else f", cost {worker_seconds / 3600 * price_per_hour:,.2f}"
    _print_facts(
        {
            "time": f"{format_seconds(worker_seconds / workers)} for {num_rows_left:,} rows with "
            f"{workers} workers at {pairs_per_second:,.1f} pairs/s each; "
            f"{worker_seconds / 3600:,.2f} worker-hours{cost}"
        }
    )
    return 0


@cli.command(epilog="Example: rgpt-batch status scored/")
@click.argument("output", type=click.Path(exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(output: str, as_json: bool) -> int:
    """Show how far the job of an output folder is."""
    from rgpt_batch.progress import format_seconds
    from rgpt_batch.store import open_store

    store = open_store(output)
    manifest = store.load_manifest() if store.has_manifest() else None
    if manifest is None:
        raise ConfigError(f"{output}: no job was planned here.")
    committed = store.committed()
    recorded = store.read_status() or {"state": "planned"}
    num_rows = sum(unit.num_rows for unit in manifest.units if unit.unit_id in committed)
    facts = {
        **recorded,
        "num_units": len(manifest.units),
        "num_units_committed": len(committed),
        "num_rows": manifest.num_rows,
        "num_rows_committed": num_rows,
        "complete": store.read_success() is not None,
        "failed_units": {failure.unit_id: failure.cause for failure in store.read_failures()},
    }
    if as_json:
        click.echo(json.dumps(facts))
        return 0
    _print_facts(
        {
            "state": _format_state(facts),
            "units": f"{len(committed):,} of {len(manifest.units):,} committed",
            "rows": f"{num_rows:,} of {manifest.num_rows:,}",
            "rejected": _format_rejected(facts.get("num_rejected", {}))
            + ("" if facts["state"] in ("complete", "incomplete") else " in the last run"),
        }
    )
    if facts["state"] == "running" and facts.get("eta_seconds") is not None:
        _print_facts(
            {
                "speed": f"{facts['pairs_per_second']:,.1f} pairs/s, "
                f"{format_seconds(facts['eta_seconds'])} left"
            }
        )
    for unit_id, cause in facts["failed_units"].items():
        click.echo(f"failed       unit {unit_id}: {cause}")
    return 0


@cli.command(epilog="Example: rgpt-batch verify scored/ --sample 50")
@click.argument("output", type=click.Path(exists=True, file_okay=False))
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
    help="Largest difference of a sampled score, nats. [default: float32 0.001, else 0.6]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the sample.")
def verify(output: str, sample: int, tolerance: float | None, seed: int) -> int:
    """Check files, rows, ids and checksums of an output folder, and on request its scores."""
    from rgpt_batch.job_run import EXIT_INCOMPLETE
    from rgpt_batch.store import open_store
    from rgpt_batch.verify import verify_output

    result = verify_output(open_store(output), num_rescored=sample, tolerance=tolerance, seed=seed)
    for problem in result.problems:
        click.echo(f"problem      {problem}")
    facts = {"checked": f"{result.num_files:,} files, {result.num_rows:,} rows"}
    if result.num_rescored:
        facts["rescored"] = (
            f"{result.num_rescored:,} rows, largest difference {result.max_score_error:.2g} nats"
        )
    facts["result"] = f"{len(result.problems)} problems" if result.problems else "all is well"
    _print_facts(facts)
    return EXIT_INCOMPLETE if result.problems else 0


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("rgpt-batch: stopped by Ctrl-C", err=True)
        sys.exit(130)
    except Interrupted as error:
        click.echo(
            f"rgpt-batch: stopped by {signal.Signals(error.signum).name}. Committed units are "
            "safe; run the same command again to score the rest.",
            err=True,
        )
        _exit_now(128 + error.signum)
    except (ConfigError, ShardError, ManifestMismatch) as error:
        click.echo(f"rgpt-batch: {error}", err=True)
        sys.exit(2)
    except (RgptBatchError, OSError) as error:
        click.echo(
            f"rgpt-batch: {error}\nCommitted units are safe; the same command resumes.", err=True
        )
        _exit_now(1)
    sys.exit(code if isinstance(code, int) else 0)


def _exit_now(code: int) -> None:
    """Leave without waiting for an engine that may be in the middle of a long step."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _load(
    config: str | None,
    overrides: tuple[str, ...] = (),
    *,
    model: str | None = None,
    protocol: str | None = None,
    max_length: int | None = None,
    pass_through: str | None = None,
    executor: str | None = None,
) -> JobConfig:
    """Read the configuration; the shortcuts win over -o, which wins over the file."""
    from rgpt_batch.config import load_config

    columns = None if pass_through is None else json.dumps(pass_through.split(","))
    shortcuts = {
        "model.name": None if model is None else json.dumps(model),
        "protocol.name": protocol,
        "protocol.max_length": max_length,
        "output.pass_through": columns,
        "executor.kind": executor,
    }
    given = tuple(f"{key}={value}" for key, value in shortcuts.items() if value is not None)
    return load_config(config, (*overrides, *given))


def _print_summary(summary: JobSummary) -> None:
    from rgpt_batch.progress import format_seconds

    facts = {
        "output": summary.output,
        "rows": f"{summary.num_rows:,}, of which {summary.num_rows_scored:,} in this run and "
        f"{summary.num_rows_before:,} before",
        "rejected": _format_rejected(summary.num_rejected),
    }
    if summary.num_rows_scored:
        facts["truncated"] = f"{summary.num_truncated_rows:,} documents in this run"
        facts["speed"] = (
            f"{summary.pairs_per_second:,.1f} pairs/s, engine busy "
            f"{summary.engine_busy_fraction:.0%}, {format_seconds(summary.seconds)} in all"
        )
    _print_facts(facts)
    for failure in summary.failures:
        click.echo(f"failed       unit {failure.unit_id}: {failure.cause}", err=True)
    for problem in summary.problems:
        click.echo(f"problem      {problem}", err=True)


def _print_facts(facts: dict[str, str]) -> None:
    for name, fact in facts.items():
        click.echo(f"{name:<12} {fact}")


def _format_state(facts: dict[str, Any]) -> str:
    if facts["state"] != "running":
        return str(facts["state"])
    from rgpt_batch.progress import format_seconds

    age = time.time() - facts["updated_at"]
    if age > _SILENT_SECONDS:
        return f"no sign of life for {format_seconds(age)}; the same command resumes"
    return f"running: {facts['activity']}"


def _last_speed(store: Store) -> float | None:
    """Return the pairs per second of one worker in the last run that scored something."""
    for run in reversed(store.read_runs()):
        num_workers = len({unit["worker"] for unit in run["units"]})
        if num_workers and (speed := run.get("summary", {}).get("pairs_per_second")):
            return float(speed) / num_workers
    return None


def _format_rejected(num_rejected: dict[str, int]) -> str:
    if not num_rejected:
        return "0"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(num_rejected.items()))
    return f"{sum(num_rejected.values()):,} ({reasons})"
