"""Queries, ids, file names and causes come from elsewhere; a report shows them and runs nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs import Scored, fake_config, score
from tests.report.jobs import write_report
from tests.report.pages import Page

EVIL = (
    "<script>alert(1)</script>|\"'><img src=http://x/y onerror=alert(1)> `b` ![c](http://d) "
    "{{ 7*7 }}"
)


@pytest.fixture(scope="module")
def evil_job(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    folder = tmp_path_factory.mktemp("evil")
    pairs = folder / "<script>alert(2)<" / "a'b\"&amp;|c.parquet"
    pairs.parent.mkdir(parents=True)
    num_rows = 12
    pq.write_table(
        pa.table(
            {
                "query_id": [f"q{i % 2}{EVIL}" for i in range(num_rows)],
                "doc_id": [f"d{i}{EVIL}" for i in range(num_rows)],
                "query": [None, *([f"\n{EVIL}\u202e query"] * (num_rows - 1))],
                "document": ["some words " * i for i in range(num_rows)],
            }
        ),
        pairs,
    )
    config = fake_config(tiny_tokenizer, "protocol.max_length=150", "units.max_rows=4")
    scored = score(config, [pairs.parent], folder / "scored <b>")
    record = max((scored.folder / "_rgpt" / "runs").iterdir())
    entry = json.loads(record.read_bytes())
    entry |= {"cause": EVIL, "state": EVIL, "versions": {EVIL: EVIL}}
    entry["config"]["model"]["name"] = EVIL
    entry["units"][0] |= {"worker": EVIL, "num_attempts": 2}
    record.write_text(json.dumps(entry))
    return scored


@pytest.fixture(scope="module")
def written(evil_job: Scored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    ids = {(row["query_id"], row["doc_id"]) for row in evil_job.rows}
    # A qrels file parts by tabs, so these ids fit.
    lines = [f"{q}\t{d}\t{int(i % 2)}\n" for i, (q, d) in enumerate(sorted(ids))]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    baseline = evil_job.table.select(["query_id", "doc_id", "score"])
    negated = pa.array([None if s is None else -s for s in evil_job.column("score")], pa.float32())
    pq.write_table(baseline.set_column(2, "score", negated), folder / "baseline.parquet")
    result = write_report(
        *(evil_job.folder, "--to", folder / "report.html"),
        *("--qrels", folder / "qrels.tsv", "--baseline", folder / "baseline.parquet"),
    )
    assert result.exit_code == 0, result.output
    return folder / "report.html"


def test_texts_are_shown_as_they_are(written: Path) -> None:
    page = Page.read(written)
    assert EVIL in page.text
    cells = [cell for row in page.all_rows() for cell in row]
    assert f"d0{EVIL}" in cells
    assert f"{EVIL}\u202e query" in cells
    assert any("<script>alert(2)<" in cell for cell in cells)
    assert "49" not in cells


def test_no_text_becomes_an_element_or_an_attribute(written: Path) -> None:
    page = Page.read(written)
    expected = (
        "html head meta title style body main header section h1 h2 h3 h4 p span dl div dt dd small "
        "strong code pre details summary table thead tbody tr th td figure svg desc rect line "
        "circle path text"
    )
    assert {element.tag for element in page.elements} <= set(expected.split())
    attributes = {name for element in page.elements for name in element.attributes}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_the_page_needs_nothing_from_elsewhere(written: Path) -> None:
    page = Page.read(written)
    for element in page.elements:
        assert not {"src", "href", "xlink:href", "srcset", "data", "action"} & set(
            element.attributes
        )
    (style,) = page.all("style")
    assert "url(" not in style.text and "@import" not in style.text
    (policy,) = [
        meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes
    ]
    assert policy and policy.startswith("default-src 'none'")


def test_the_summary_holds_no_markup_of_others(written: Path) -> None:
    lines = written.with_suffix(".md").read_text().splitlines()
    for line in lines:
        for special in "<`[":
            assert special not in line.replace(f"\\{special}", ""), line
    widths: dict[int, int] = {}
    for i, line in enumerate(lines):
        if line.startswith("|"):
            widths[i] = line.replace("\\|", "").count("|")
            # A row of a table is as wide as the one above it.
            assert widths.get(i - 1, widths[i]) == widths[i], line


def test_ids_are_unique_and_every_picture_has_a_name(written: Path) -> None:
    page = Page.read(written)
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    pictures = page.all("svg")
    assert len(pictures) >= 6
    for picture in pictures:
        assert picture.attributes["role"] == "img"
        assert set((picture.attributes["aria-labelledby"] or "").split()) <= set(ids)
    assert all(e.attributes.get("scope") for e in page.all("th"))
