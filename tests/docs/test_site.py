"""The documentation builds without a warning or a network, and its reference is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import site_reference

from tests.conftest import ROOT
from tests.jobs import Score
from tests.report.jobs import write_pairs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a broken link is an error. Takes ten seconds."""
    folder = tmp_path_factory.mktemp("site")
    # A socket would be refused: what the build asked for elsewhere would fail it.
    guard = folder / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*arguments, **options):\n"
        "    raise OSError('the documentation is built without a network')\n"
        "socket.socket.connect = refuse\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder / "site"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{guard}:{ROOT / 'scripts'}:{ROOT}",
            "NO_MKDOCS_2_WARNING": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder / "site"


class _Loaded(HTMLParser):
    """Collects what a browser loads with a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "link"):
            self.addresses += filter(None, (found.get("src"), found.get("href")))


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loaded = _Loaded(page.read_text(encoding="utf-8")).addresses
        assert loaded, page
        assert not [address for address in loaded if "//" in address], page
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), (
            style
        )


def test_every_page_stands_in_the_navigation(site: Path) -> None:
    """Also those that are made, lie outside of docs/, or came later than mkdocs.yml."""
    start = (site / "index.html").read_text(encoding="utf-8")
    linked = {
        os.path.normpath(target.partition("#")[0])
        for target in re.findall(r'class="md-nav__link[^"]*"[^>]*href="|href="([^"]+)"', start)
        if target
    }
    built = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    assert built - linked - {"404.html", "index.html"} == set()


def test_every_command_and_each_of_its_options_is_in_the_reference() -> None:
    page = site_reference.commands_page()
    names = [name for name, _ in site_reference.commands()]
    assert {"rgpt-batch score", "rgpt-batch import trec", "rgpt-batch report"} <= set(names)
    parts = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert [part.partition("\n")[0] for part in parts] == [
        name.removeprefix("rgpt-batch ") for name in names
    ]
    for part, (name, command) in zip(parts, site_reference.commands(), strict=True):
        for param in command.params:
            for option in param.opts if param.param_type_name == "option" else ():
                assert re.search(rf"[> ]{re.escape(option)}[ ,<]", part), f"{name} {option}"


def test_every_option_of_a_configuration_is_in_the_reference_and_described() -> None:
    page = site_reference.options_page()
    options = dict(site_reference.options())
    assert {"model.name", "engine.max_num_seqs", "input.columns.query"} <= options.keys()
    assert "protocol.prompt[].special" in options
    assert [name for name, field in options.items() if not field.description] == []
    assert all(f"| `{name}` |" in page for name in options)
    assert "`executor.kind` | `ray`, `local` | `ray` |" in page
    assert "| `output.max_rejected_fraction` | number, at least 0, at most 1 | `0.1` |" in page
    assert "| `engine.max_num_seqs` | whole number, above 0 | `256` |" in page


def test_every_column_is_in_the_reference_with_its_type(
    score_with_fake: Score, tmp_path: Path
) -> None:
    overrides = ("output.query_token_logprobs=true", "output.source=true")
    scored = score_with_fake(write_pairs(tmp_path / "pairs"), overrides=overrides)
    written = pq.read_schema(next(scored.folder.glob("part-*")))
    described = site_reference.columns()
    assert {field.name: field.type for field in written}.items() <= {
        field.name: field.type for field in described
    }.items()
    assert site_reference.MEANINGS.keys() == set(described.names)
    page = site_reference.columns_page()
    assert all(f"| `{name}` | " in page for name in described.names)
    assert "| `score` | float32 |" in page


def test_every_exit_code_is_in_the_reference() -> None:
    assert list(site_reference.exit_codes()) == ["0", "1", "2", "3", "130, 143"]
    page = site_reference.exit_codes_page()
    assert "| 130, 143 | stopped by Ctrl-C or SIGTERM; the same command resumes |" in page


def test_the_readme_names_every_column() -> None:
    named = set(re.findall(r"`(\w+)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(site_reference.columns().names) <= named


def test_the_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
