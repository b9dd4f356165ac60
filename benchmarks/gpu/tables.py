"""Tables that grow row by row: Markdown, and JSON lines beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

Cell = str | int | float | None


class Table:
    """Writes both files anew with every row, so that a run that is cut leaves its rows.

    Args:
        path: The Markdown file.
        title: Its heading.
        columns: In the order of the cells; also the names in the JSON lines.
    """

    def __init__(self, path: Path, title: str, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = tuple(columns)
        self._title = title
        self._text = f"# {title}\n\n{_line(columns)}\n{_line(['---'] * len(columns))}\n"
        self._json_lines = ""
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, *cells: Cell) -> None:
        """Add a row; floats are shown with three digits, large ones without a fraction."""
        self._text += _line([_shown(cell) for cell in cells]) + "\n"
        row = dict(zip(self._columns, cells, strict=True))
        self._json_lines += json.dumps({"table": self._title, **row}) + "\n"
        self._write()

    def say(self, text: str) -> None:
        """Add a paragraph behind the rows; no row can follow it."""
        self._text += f"\n{text}\n"
        self._write()

    def _write(self) -> None:
        self._path.write_text(self._text, encoding="utf-8")
        self._path.with_suffix(".jsonl").write_text(self._json_lines, encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    text = str(cell)
    return text.replace("|", "\\|").replace("\n", " ")
