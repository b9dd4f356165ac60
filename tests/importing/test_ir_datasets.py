"""The source ir_datasets, against the real package and a data set that is registered here."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.sources.ir_data import IrDatasetsSource
from tests.importing.files import (
    DOCUMENTS,
    QUERIES,
    RUN,
    import_rows,
    run_import,
    write_run,
    write_tsv,
)

_numbers = itertools.count()


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register a data set with the given parts under a name of its own."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    import ir_datasets
    from ir_datasets.formats import TrecQrels, TrecScoredDocs, TsvDocs, TsvQueries
    from ir_datasets.util import LocalDownload

    def local(path: Path) -> Any:
        return LocalDownload(path)

    def do(*parts: str, corpus: Path | None = None, further: Sequence[Any] = ()) -> str:
        qrels = tmp_path / "qrels"
        qrels.write_text("q1 0 d1 1\nq1 0 d2 0\n")
        handlers = {
            "docs": TsvDocs(local(corpus or write_tsv(tmp_path / "docs", DOCUMENTS.items()))),
            "queries": TsvQueries(local(write_tsv(tmp_path / "queries", QUERIES.items()))),
            "qrels": TrecQrels(local(qrels), {0: "no", 1: "yes"}),
            "scoreddocs": TrecScoredDocs(local(write_run(tmp_path / "scored"))),
        }
        name = f"rgpt-batch-{next(_numbers)}"
        dataset = ir_datasets.Dataset(*(handlers[part] for part in parts), *further)
        ir_datasets.registry.register(name, dataset)
        return name

    return do


def _source(name: str, run: Path | None = None, candidates: Any = "scoreddocs") -> IrDatasetsSource:
    return IrDatasetsSource(name=name, run=str(run) if run else None, candidates=candidates)


def test_scored_documents_of_a_data_set_are_its_candidates(register: Any, tmp_path: Path) -> None:
    name = register("docs", "queries", "scoreddocs")
    rows = import_rows(_source(name), tmp_path / "pairs")
    assert [tuple(row.values()) for row in rows] == [
        (q, QUERIES[q], d, DOCUMENTS[d], score)
        for q, d, score in (("q1", "d1", 2.5), ("q1", "d3", 1.0), ("q2", "d2", 9.5))
    ]


def test_candidates_may_come_from_a_run_or_from_the_qrels(register: Any, tmp_path: Path) -> None:
    name = register("docs", "queries", "qrels")
    rows = import_rows(_source(name, run=write_run(tmp_path / "run")), tmp_path / "pairs")
    assert len(rows) == len(RUN)
    rows = import_rows(_source(name, candidates="qrels"), tmp_path / "judged")
    assert [(row["query_id"], row["doc_id"]) for row in rows] == [("q1", "d1"), ("q1", "d2")]


def test_data_set_without_candidates_says_what_to_give(register: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no scoreddocs.*--run.*--qrels"):
        run_import(_source(register("docs", "queries", "qrels")), tmp_path / "pairs")


def test_unknown_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no data set 'no/such'"):
        run_import(_source("no/such"), tmp_path / "pairs")


def test_file_that_ir_datasets_cannot_get_is_an_error(register: Any, tmp_path: Path) -> None:
    name = register("docs", "queries", "scoreddocs", corpus=tmp_path / "gone")
    with pytest.raises(ShardError, match=r"could not give the docs of .*gone"):
        run_import(_source(name), tmp_path / "pairs")


def test_missing_package_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Importing a module that is None there fails as if it were not installed.
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'rgpt-batch\[ir-datasets\]'"):
        run_import(_source("vaswani"), tmp_path / "pairs")


class Question(NamedTuple):
    """As 20 data sets of ir_datasets have them: no default_text()."""

    query_id: str
    text: str
    gold: str


class Answer(NamedTuple):
    """A document whose text is in a field of that name."""

    doc_id: str
    text: str
    gold: str


class Function(NamedTuple):
    """A document without one text."""

    doc_id: str
    code: str
    language: str


@pytest.mark.parametrize("record", [Function("d1", "print()", "Python"), Answer("d1", "one", "")])
def test_field_text_stands_in_for_a_missing_default_text(
    register: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Any
) -> None:
    from ir_datasets.formats import BaseDocs, BaseQueries

    class Queries(BaseQueries):
        def queries_iter(self) -> Any:
            yield Question("q1", "a question", "gold")
            yield Question("q2", "another", "gold")

        def queries_cls(self) -> Any:
            return Question

    class Docs(BaseDocs):
        def docs_iter(self) -> Any:
            for number in (1, 2, 3):
                yield record._replace(doc_id=f"d{number}")

        def docs_cls(self) -> Any:
            return type(record)

    name = register("qrels", further=(Queries(), Docs()))
    source = _source(name, candidates="qrels")
    if isinstance(record, Answer):
        rows = import_rows(source, tmp_path / "pairs")
        assert {(row["query"], row["document"]) for row in rows} == {("a question", "one")}
    else:
        with pytest.raises(ConfigError, match="a Function has no text, but doc_id, code, language"):
            import_rows(source, tmp_path / "pairs")
