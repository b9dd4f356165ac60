"""What mkdocs does not do by itself when it builds the documentation; see mkdocs.yml.

Pages that are made from the program, and those that lie elsewhere in the repository, become part of
the site without a copy in docs/. A page that the navigation does not name gets a place in it.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import site_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Pages outside of docs/, by their paths in the repository, which are theirs in the site as well.
ELSEWHERE = ("benchmarks/README.md", "demo/README.md", "benchmarks/results/*.md", "CHANGELOG.md")
# Where pages go that the navigation does not name.
FURTHER_PAGES = "How to"

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what does not lie in docs/."""
    for path, content in site_reference.pages().items():
        files.append(File.generated(config, path, content=content))
    for path in _elsewhere():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    config.nav = _complete(config.nav or [], [file.src_uri for file in files.documentation_pages()])
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files of the repository at their pages; of other files only the name stays."""
    source = page.file.src_uri
    # Where the page lies in the repository.
    place = source if source in _elsewhere() else f"docs/{source}"

    def pointed(match: re.Match[str]) -> str:
        target, hash_, anchor = match["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        inside = path.removeprefix("docs/")
        if files.get_file_from_path(inside) is not None:
            uri = posixpath.relpath(inside, posixpath.dirname(source) or ".")
            return f"[{match['text']}]({uri}{hash_}{anchor})"
        if not (ROOT / path).exists():
            # mkdocs reports it.
            return match[0]
        return match["text"] if match["text"].strip("`") == path else f"{match['text']} (`{path}`)"

    return _LINK.sub(pointed, markdown)


def _elsewhere() -> list[str]:
    return [
        os.fspath(found.relative_to(ROOT))
        for pattern in ELSEWHERE
        for found in sorted(ROOT.glob(pattern))
    ]


def _complete(nav: list[Any], pages: Iterable[str]) -> list[Any]:
    """Give every page a place that has none."""
    named = set(_named(nav))
    rest = sorted(page for page in pages if page not in named)
    decisions = [page for page in rest if page.startswith("adr/")]
    measured = [page for page in rest if page in _elsewhere()]
    further = [page for page in rest if page not in {*decisions, *measured}]
    places = {"Decisions": decisions, "Measured": measured, FURTHER_PAGES: further}
    found = []
    for entry in nav:
        ((title, content),) = entry.items()
        found.append({title: [*content, *places[title]] if title in places else content})
    return found


def _named(nav: Any) -> Iterable[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(each)
