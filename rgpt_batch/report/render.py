"""From facts to files: one HTML page that needs nothing else, and a summary in Markdown.

Queries, ids, paths and causes are untrusted: the environment of HTML escapes every value, that of
Markdown every value as well, so that none can become markup in either.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from rgpt_batch.planning.identity import PairFiles
from rgpt_batch.report import numbers, time_plots, value_plots
from rgpt_batch.report.facts import Report
from rgpt_batch.report.svg import Plot
from rgpt_batch.report.work_time import Spans, activity, spans
from rgpt_batch.storage.written_files import is_stream, replacing

MAX_TEXT_CHARS = 200
MAX_ROWS_SHOWN = 50

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
    for name in ("number", "signed", "rate", "percent", "duration", "moment", "p_value"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["brief"] = _brief
    return environment


def _context(report: Report) -> dict[str, Any]:
    units = spans(report.records)
    return {
        "report": report,
        "rows": report.rows,
        "score_unit": report.manifest.identity.score_unit,
        "quality": report.quality,
        "cost": report.cost,
        "model": _model_name(report.model),
        "speed": report.speed,
        "notes": report.notes,
        "plots": _plots(report, units),
        "num_lanes": max((unit.lane for unit in units), default=-1) + 1,
        "max_lanes": time_plots.MAX_LANES,
        "settings": _settings(report),
        "config_yaml": None if report.config is None else yaml.safe_dump(report.config),
        "max_rows": MAX_ROWS_SHOWN,
        "num_runs_hidden": max(0, len(report.runs) - MAX_ROWS_SHOWN),
    }


def _plots(report: Report, units: Sequence[Spans]) -> dict[str, Plot]:
    found = {}
    if (over_time := activity(report.records, time_plots.NUM_TIME_BINS)) is not None:
        found["speed"] = time_plots.speed(over_time)
        found["timeline"] = time_plots.timeline(units, report.records, over_time)
    if (rows := report.rows) is not None:
        if rows.scores is not None:
            found["scores"] = value_plots.histogram(
                rows.scores,
                plot_id="scores",
                title="Scores",
                label=f"score: {report.manifest.identity.score_meaning}",
                decimals=2,
            )
        for name, title, distribution in (
            ("document_tokens", "Rows by document tokens", rows.document_tokens),
            ("query_tokens", "Rows by query tokens", rows.query_tokens),
            ("text_tokens", "Rows by tokens of both", rows.text_tokens),
        ):
            if distribution is not None:
                found[name] = value_plots.histogram(
                    distribution,
                    plot_id=name,
                    title=title,
                    label="tokens",
                    width=300.0,
                    height=190.0,
                    max_bins=30,
                )
    if (quality := report.quality) is not None:
        found["intervals"] = value_plots.intervals(quality.evaluation.metrics)
        if quality.differences:
            metric = quality.evaluation.metrics[0].metric
            found["changes"] = value_plots.changes(quality.differences, metric)
    return found


def _settings(report: Report) -> dict[str, str]:
    """Return what the fingerprint covers, without the list of files."""
    identity = report.manifest.identity
    if isinstance(identity.input, PairFiles):
        return {"input": _first_of(identity.input.paths), **identity.settings}
    tables = identity.input.tables.items()
    files = {f"input {name}": _first_of(table.paths) for name, table in tables}
    return {**files, **identity.input.settings, **identity.settings}


def _first_of(paths: Sequence[str]) -> str:
    if not paths:
        return numbers.DASH
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1:,} more"


def _model_name(model: str | None) -> str | None:
    """Return a hub id as it is, of a folder its name."""
    is_folder = model is not None and model.startswith((".", "/"))
    return Path(model).name if model is not None and is_folder else model


def _brief(text: str | None) -> str:
    """Cut a text that may be of any length; None as a dash."""
    if text is None:
        return numbers.DASH
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"


def _escape_markdown(value: Any) -> Any:
    """Escape a value for any place in a Markdown text; tables and line breaks included."""
    if not isinstance(value, str):
        return value
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(value.split()))
