"""What a reader must know before all else, one sentence or two each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rgpt_batch.formatting import format_count
from rgpt_batch.report.numbers import percent

if TYPE_CHECKING:
    from rgpt_batch.report.facts import Report

# From here on the cut decides what a model sees of many documents.
HIGH_TRUNCATED_FRACTION = 0.1
HIGH_REJECTED_FRACTION = 0.01
HIGH_UNJUDGED_FRACTION = 0.1

INVENTED = (
    "The fake engine wrote this output. It has no model: every score is a checksum of the texts. "
    "Ranking and quality mean nothing, and no speed or cost says how fast a model is."
)


def alarm(report: Report) -> str | None:
    """Return what makes the whole report worthless, if something does."""
    return INVENTED if "fake" in report.engines else None


def notes(report: Report) -> tuple[str, ...]:
    """Return all else."""
    return (*_of_the_job(report), *_of_the_records(report), *_of_the_rows(report))


def _of_the_job(report: Report) -> Iterator[str]:
    num_units = len(report.manifest.units)
    if num_missing := num_units - report.num_units_committed:
        yield (
            f"{num_missing:,} of {num_units:,} units "
            f"({report.num_rows - report.num_rows_committed:,} rows) are not scored yet. Running "
            "the same command again scores them."
        )
    elif report.state != "complete" and report.false_success is None:
        yield "All units are there, but the job was not declared complete: no _SUCCESS."
    if report.false_success is not None:
        yield (
            f"The output does not count as complete: {report.false_success}. Running the same "
            "command again mends that."
        )
    last = report.runs[-1] if report.runs else None
    # A run that came to its end says of missing units what stands here already.
    is_said = last is not None and last.state == "incomplete" and num_missing
    if report.state != "complete" and last is not None and last.cause and not is_said:
        yield f"The last run ended so: {last.cause}"


def _of_the_records(report: Report) -> Iterator[str]:
    if report.num_rows_unrecorded:
        yield (
            f"No run record speaks of {report.num_rows_unrecorded:,} of the committed rows, "
            "because their run was stopped or killed just then or is still at work. Speed, "
            "cost and runs are without them."
        )
    if report.num_foreign_records:
        yield (
            f"{format_count(report.num_foreign_records, 'run record')} "
            f"{'was' if report.num_foreign_records == 1 else 'were'} written by another version "
            "of rgpt-batch, and left out here."
        )
    if len(report.engines) > 1:
        yield (
            f"Several methods scored: {', '.join(report.engines)}. Their scores differ by rounding."
        )


def _of_the_rows(report: Report) -> Iterator[str]:
    rows, quality = report.rows, report.quality
    if rows is not None and rows.truncated_fraction >= HIGH_TRUNCATED_FRACTION:
        yield (
            f"{percent(rows.truncated_fraction)} of the documents were cut: the model saw only "
            "their beginning. Raise --max-length as far as the model allows, or score passages and "
            "keep each document's best one (rank --duplicates max)."
        )
    if rows is not None and rows.rejected_fraction >= HIGH_REJECTED_FRACTION:
        yield (
            f"{percent(rows.rejected_fraction)} of the rows were rejected and have no score; "
            "see the reasons below."
        )
    if quality is not None:
        unjudged = quality.evaluation.unjudged_fraction
        if unjudged >= HIGH_UNJUDGED_FRACTION:
            yield (
                f"Nobody has judged {percent(unjudged)} of the first ten documents of the queries. "
                "They count as not relevant, so the true quality may be higher."
            )
    if report.quality_missing:
        yield report.quality_missing
