"""From facts to files: one HTML page that needs nothing else, and a summary in Markdown.

Queries, ids, paths and causes are untrusted: the environment of HTML escapes every value, that of
Markdown every value as well, so that none can become markup in either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from rgpt_batch.formatting import format_count
from rgpt_batch.report import (
    metric_plots,
    numbers,
    quality_tables,
    tables,
    time_plots,
    value_plots,
)
from rgpt_batch.report.facts import Report
from rgpt_batch.report.rows import Distribution
from rgpt_batch.report.settings import settings
from rgpt_batch.report.svg import NARROW, SMALL, WIDE, Plot
from rgpt_batch.report.tables import Table
from rgpt_batch.report.tiles import per_row, tiles
from rgpt_batch.report.work_time import Spans, activity, spans
from rgpt_batch.storage.written_files import is_stream, replacing

MAX_ROWS_SHOWN = 50

# A report has them where there is something to tell.
_OPTIONAL_TABLES = (
    *("metrics", "losses", "gains", "fused", "scores", "tokens", "truncated", "rejected"),
    *("rejected_examples", "cost", "planned", "runs", "failures", "versions"),
)

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[|~<>&$])")


def to_html(report: Report) -> str:
    """Write the page."""
    environment = _environment(autoescape=True)
    return environment.get_template("report.html.j2").render(_context(report))


def to_markdown(report: Report) -> str:
    """Write the summary."""
    environment = _environment(autoescape=False, finalize=_escape_markdown)
    text = environment.get_template("report.md.j2").render(_context(report))
    return re.sub(r"\n{3,}", "\n\n", text)


def write_report(report: Report, path: Path) -> Path | None:
    """Write the page, and the summary beside it; each appears in one step.

    Returns:
        The path of the summary; None where the page goes to a device or a pipe, which has no file
        beside it.

    Raises:
        ConfigError: The files cannot be written there.
    """
    texts = {path: to_html(report)}
    summary = None if is_stream(path) else path.with_suffix(".md")
    if summary is not None:
        texts[summary] = to_markdown(report)
    for file, text in texts.items():
        with replacing(file) as staged:
            staged.write_text(text, encoding="utf-8")
    return summary


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rgpt_batch.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    for name in ("number", "percent", "brief"):
        environment.filters[name] = getattr(numbers, name)
    return environment


def _context(report: Report) -> dict[str, Any]:
    units = spans(report.records)
    return {
        "report": report,
        "rows": report.rows,
        "quality": report.quality,
        "model": _model_name(report.model),
        "hardware": report.speed and tables.hardware(report.speed.hardware),
        "tiles": (figures := list(tiles(report))),
        "tiles_per_row": per_row(len(figures)),
        "plots": _plots(report, units),
        "tables": {
            **dict.fromkeys(_OPTIONAL_TABLES),
            **{name: found for name, found in _tables(report) if found.rows},
        },
        "opened": [
            (
                query,
                quality_tables.top_documents(query.run_top),
                quality_tables.top_documents(query.baseline_top),
            )
            for query in (report.quality.losses if report.quality else ())
            if query.run_top
        ],
        "num_lanes": max((unit.lane for unit in units), default=-1) + 1,
        "max_lanes": time_plots.MAX_LANES,
        "max_length": report.manifest.identity.scoring["protocol.max_length"],
        "config_yaml": None if report.config is None else yaml.safe_dump(report.config),
        "causes": [run for run in report.runs[-MAX_ROWS_SHOWN:] if run.cause],
        "num_runs_hidden": max(0, len(report.runs) - MAX_ROWS_SHOWN),
        "num_failures_hidden": max(0, len(report.failures) - MAX_ROWS_SHOWN),
    }


def _plots(report: Report, units: Sequence[Spans]) -> dict[str, list[Plot]]:
    """Draw every picture: what is as wide as the page also for narrow screens."""
    found: dict[str, list[Plot]] = {}
    over_time = activity(report.records, time_plots.NUM_TIME_BINS)
    for frame in (WIDE, NARROW):
        drawn = []
        if over_time is not None:
            drawn.append(time_plots.speed(over_time, frame))
            drawn.append(time_plots.timeline(units, report.records, over_time, frame))
        if report.rows and report.rows.scores:
            meaning = report.manifest.identity.score_meaning
            drawn.append(
                value_plots.histogram(
                    report.rows.scores,
                    name="scores",
                    title="Scores",
                    label=f"score: {meaning}" if frame is WIDE else meaning,
                    frame=frame,
                    decimals=2,
                )
            )
        if quality := report.quality:
            drawn.append(metric_plots.intervals(quality.metrics, frame))
            if quality.differences:
                metric = quality.evaluation.metrics[0].metric
                drawn.append(value_plots.changes(quality.differences, metric, frame))
        for plot in drawn:
            found.setdefault(plot.name, []).append(plot)
    for name, title, distribution in _token_counts(report):
        found[name] = [
            value_plots.histogram(distribution, name=name, title=title, label="tokens", frame=SMALL)
        ]
    return found


def _token_counts(report: Report) -> Iterator[tuple[str, str, Distribution]]:
    rows = report.rows
    if rows and rows.document_tokens and rows.query_tokens and rows.text_tokens:
        yield "document_tokens", "Rows by document tokens", rows.document_tokens
        yield "query_tokens", "Rows by query tokens", rows.query_tokens
        yield "text_tokens", "Rows by tokens of both", rows.text_tokens


def _tables(report: Report) -> Iterator[tuple[str, Table]]:
    yield "about", tables.facts(dict(_about(report)))
    if quality := report.quality:
        yield "metrics", quality_tables.metrics(quality.metrics)
        yield "losses", quality_tables.changes(quality.losses)
        yield "gains", quality_tables.changes(quality.gains)
        if quality.fused:
            yield "fused", quality_tables.fused(quality.fused)
    if rows := report.rows:
        if rows.scores:
            unit = report.manifest.identity.score_unit
            name = f"Score, {unit}" if unit else "Score"
            yield "scores", tables.quantiles({name: (rows.scores, 2)})
        names = ("Document, as it stands in the prompt", "Query", "Document and query")
        counts = [found for _, _, found in _token_counts(report)]
        yield "tokens", tables.quantiles({n: (d, 0) for n, d in zip(names, counts, strict=False)})
        yield "truncated", tables.truncated(rows.truncated)
        yield "rejected", tables.rejected(rows.rejected)
        yield "rejected_examples", tables.rejected_examples(rows.rejected)
    if report.cost:
        yield "cost", tables.cost(report.cost)
    if report.estimate:
        worker_hours = sum(run.worker_hours for run in report.runs)
        yield (
            "planned",
            tables.planned(report.estimate, report.num_rows_committed, worker_hours, report.cost),
        )
    yield "runs", tables.runs(report.runs[-MAX_ROWS_SHOWN:])
    yield "failures", tables.failures(report.failures[:MAX_ROWS_SHOWN])
    yield "settings", tables.facts(settings(report.manifest.identity, report.model))
    yield "versions", tables.facts(report.versions)


def _about(report: Report) -> Iterator[tuple[str, str]]:
    """Say what was done, when, how and on what."""
    scoring = report.manifest.identity.scoring
    yield "Output", report.output
    if report.time_span:
        num_runs = format_count(len(report.runs), "run")
        yield "Scored", f"{numbers.period(*report.time_span)}, {num_runs}"
    chosen = scoring["engine.method"]
    engine = ", ".join(report.engines) or chosen
    if chosen == "auto" and report.engines:
        engine += ", chosen by auto"
    version = "" if scoring["engine.version"] == chosen else f"; {scoring['engine.version']}"
    yield "Engine", f"{engine}{version}; dtype {scoring['model.dtype']}"
    if report.speed and report.speed.hardware:
        yield "Hardware", tables.hardware(report.speed.hardware)
    yield (
        "Protocol",
        f"{scoring['protocol.name']}, at most {scoring['protocol.max_length']} tokens per prompt",
    )


def _model_name(model: str | None) -> str | None:
    """Return a hub id as it is, of a folder its name."""
    is_folder = model is not None and model.startswith((".", "/"))
    return Path(model).name if model is not None and is_folder else model


def _escape_markdown(value: Any) -> Any:
    """Escape a value for any place in a Markdown text; tables and line breaks included."""
    if not isinstance(value, str):
        return value
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(value.split()))
