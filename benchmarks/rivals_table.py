"""What rivals.py found, kept as lines of JSON and shown as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What `fail` and `skip` stand for, by the begin of a system's name.
SETTINGS = {
    ("rgpt_batch", "fail"): "defaults",
    ("ray-data", "fail"): "defaults",
    ("ray-data", "skip"): "max_errored_blocks=-1, max_restarts=6, max_task_retries=2",
    ("daft", "fail"): "defaults",
    ("daft", "skip"): "on_error=log, max_retries=2",
}


def keep(path: Path, result: dict[str, Any]) -> None:
    """Put a result beside those of other systems, in the place of an older one of its own."""
    lines = path.read_text().splitlines() if path.exists() else []
    others = [other for other in map(json.loads, lines) if other["system"] != result["system"]]
    results = sorted([*others, result], key=lambda one: str(one["system"]))
    path.write_text("".join(f"{json.dumps(one)}\n" for one in results))
    title = f"# The same kills for other systems, {path.name[:10]}\n\n"
    path.with_suffix(".md").write_text(title + to_markdown(results))


def to_markdown(results: Sequence[dict[str, Any]]) -> str:
    """Show results of several systems as two tables."""
    lines = [f"| | {' | '.join(one['system'] for one in results)} |", "|---" * (len(results) + 1)]
    lines[1] += "|"
    versions = (", ".join(f"{k} {v}" for k, v in one["versions"].items()) for one in results)
    lines.append(f"| versions | {' | '.join(versions)} |")
    lines.append(f"| seed | {' | '.join(str(one['seed']) for one in results)} |")
    for name in results[0]["campaign"]:
        if name not in ("rows_wanted", "rows_scored"):
            values = (f"{round(one['campaign'][name]):,}" for one in results)
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(values)} |")
    lines.append(
        f"| rows scored again | {' | '.join(_again(one['campaign']) for one in results)} |"
    )
    lines += [
        "",
        "| system | setting | a row that … | exit codes | good rows scored | rows without a score |"
        " rows missing | doubled | changed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        for bad in one["bad_rows"]:
            setting = next(
                text
                for (begin, name), text in SETTINGS.items()
                if one["system"].startswith(begin) and name == bad["setting"]
            )
            lines.append(f"| {one['system']} | {setting} | {_bad_row(bad)} |")
    return "\n".join(lines) + "\n"


def _again(campaign: dict[str, Any]) -> str:
    wanted = campaign["rows_wanted"]
    return f"{(campaign['rows_scored'] - wanted) / wanted:.0%}" if wanted else "no job ended"


def _bad_row(bad: dict[str, Any]) -> str:
    codes = ("no end" if code is None else str(code) for code in bad["exit_codes"])
    does = {"raise": "raises", "kill": "kills"}[bad["row"]]
    counts = ("good_rows_scored", "rows_without_score", "rows_missing", "rows_doubled")
    numbers = [f"{bad[name]:,}" for name in (*counts, "rows_changed")]
    return " | ".join([does, ", ".join(codes), *numbers])
