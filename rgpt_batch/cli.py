"""The command line. Heavy modules are imported inside the commands, so that --help is instant."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence

import click

from rgpt_batch import __version__
from rgpt_batch.commands import (
    bench,
    converting,
    evaluation,
    importing,
    inspection,
    machine,
    models,
    planning,
    publishing,
    ranking,
    report,
    scoring,
    trying,
    tuning,
)
from rgpt_batch.config.arguments import check_text
from rgpt_batch.errors import ConfigError, Interrupted, ManifestMismatch, RgptBatchError, ShardError
from rgpt_batch.storage.uris import redacted

EXIT_CODES = """\b
Exit codes:
  0  complete
  1  stopped by an error of engine or storage; the same command resumes
  2  wrong usage, configuration, input or output folder
  3  finished, but units failed, too many rows were rejected, or a check found a problem
  130, 143  stopped by Ctrl-C or SIGTERM; the same command resumes
"""


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rgpt-batch")
def cli() -> None:
    """Score query-document pairs by query likelihood: Parquet in, scored Parquet out."""


for _command in (
    scoring.score,
    scoring.retry_failed,
    trying.try_pairs,
    planning.plan,
    inspection.status,
    inspection.verify,
    importing.import_group,
    converting.convert,
    models.models,
    ranking.rank,
    evaluation.evaluate,
    evaluation.compare,
    report.report,
    publishing.publish,
    bench.bench,
    tuning.tune,
    machine.doctor,
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors become one message and an exit code.

    Args:
        arguments: Default: those of this process.
    """
    try:
        for argument in sys.argv[1:] if arguments is None else arguments:
            check_text(argument)
        code = cli.main(arguments, prog_name="rgpt-batch", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(redacted(shown.getvalue()), err=True, nl=False)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("rgpt-batch: stopped by SIGINT", err=True)
        sys.exit(130)
    except Interrupted as error:
        _show(error, f"stopped by {signal.Signals(error.signum).name}")
        _exit_now(128 + error.signum)
    except (ConfigError, ShardError, ManifestMismatch) as error:
        _show(error)
        sys.exit(2)
    except (RgptBatchError, OSError) as error:
        _show(error)
        _exit_now(1)
    sys.exit(code if isinstance(code, int) else 0)


def _show(error: Exception, text: str | None = None) -> None:
    lines = [f"rgpt-batch: {text or error}", *getattr(error, "__notes__", ())]
    click.echo(redacted("\n".join(lines)), err=True)


def _exit_now(code: int) -> None:
    """Leave without waiting for an engine that may be in the middle of a long step."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
