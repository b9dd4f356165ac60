"""The commands that the documentation shows: fenced blocks of `sh`.

A block's title says what its commands need. Those `on the demo data` are run by a test as they
stand; all others are only parsed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

RUN = "on the demo data"

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command line.

    Attributes:
        page: Path in the repository.
        title: Of its block; empty where it has none.
    """

    page: str
    line: int
    title: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that shows commands to users."""
    found = [ROOT / "README.md", ROOT / "benchmarks/README.md", ROOT / "demo/README.md"]
    return [*found, *sorted((ROOT / "docs").rglob("*.md"))]


def fences(text: str) -> Iterator[tuple[str, int, str]]:
    """Yield the info string of each fenced block, the line of its first row, and its body."""
    for match in _FENCE.finditer(text):
        yield match["info"].strip(), text.count("\n", 0, match.start("body")) + 1, match["body"]


def commands(page: Path) -> list[Command]:
    """The commands of a page, in order."""
    found = []
    for info, line, body in fences(page.read_text(encoding="utf-8")):
        language, _, rest = info.partition(" ")
        if language not in ("sh", "bash"):
            continue
        title = re.fullmatch(r'(?:title="([^"]+)")?', rest.strip())
        assert title, f"{page}:{line}: the block's title is not understood: {rest}"
        number = line
        for text in body.replace("\\\n", "\\\0").splitlines():
            joined = text.replace("\\\0", " ")
            if words := tuple(shlex.split(joined, comments=True)):
                found.append(
                    Command(
                        page=str(page.relative_to(ROOT)),
                        line=number,
                        title=title[1] or "",
                        words=words,
                    )
                )
            number += 1 + text.count("\\\0")
    return found
