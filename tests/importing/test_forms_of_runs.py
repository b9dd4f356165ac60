"""One run and its judgements in every form in which files of them come, read by every command."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch.cli import cli
from rgpt_batch.errors import ShardError
from rgpt_batch.importing.readers.trec import read_qrels, read_run
from tests.importing.files import DOCUMENTS, QUERIES, read_rows, write_tsv
from tests.ranking.files import feeding, write_lines, write_scored

# query, doc, rank, score; d3 of q1 is the only document whose place differs from its line's.
RUN = [("q2", "d2", 1, 9.5), ("q1", "d3", 2, 1.0), ("q1", "d1", 1, 2.5)]
QRELS = [("q1", "d3", 1), ("q1", "d1", 0), ("q2", "d2", 2)]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a file is written.

    Attributes:
        line: One line, with {query}, {doc} and the values by their names.
        head: What stands above the lines.
        foot: What stands below.
        before_ids: What all ids begin with.
        encode: Makes the file's bytes.
        is_pipe: Whether it is a named pipe.
    """

    line: str
    head: str = ""
    foot: str = ""
    before_ids: str = ""
    encode: Callable[[str], bytes] = str.encode
    is_pipe: bool = False

    def id(self, name: str) -> str:
        return self.before_ids + name

    @contextmanager
    def written(self, path: Path, rows: list[dict[str, Any]]) -> Iterator[Path]:
        """Have a command read the rows; a pipe can be read once."""
        lines = (
            self.line.format(**{**row, "query": self.id(row["query"]), "doc": self.id(row["doc"])})
            for row in rows
        )
        text = self.head + "".join(f"{line}\n" for line in lines) + self.foot
        if self.is_pipe:
            with feeding(path, text, lambda: None):
                yield path
        else:
            path.write_bytes(self.encode(text))
            yield path


def _with_mark(text: str) -> bytes:
    return text.encode("utf-8-sig")


def _compressed(text: str) -> bytes:
    return gzip.compress(text.encode())


def _with_windows_ends(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


COMMENTS = {
    "head": "# a run\n#\n# made by bm25, whose k1 was 0.9\n# qid Q0 docid rank score tag\n",
    "foot": "#end\n# of the\n# of the run\n",
}


def _forms(line: str) -> dict[str, Form]:
    """The forms that runs and judgements have in common."""
    tabs = line.replace(" ", "\t")
    return {
        "blanks": Form(line=line),
        "tabs": Form(line=tabs),
        "columns": Form(line="  " + line.replace(" ", "    ") + " "),
        "ids-with-blanks": Form(line=tabs, before_ids="no "),
        "other-scripts": Form(line=line, before_ids="ö语"),
        "comments": Form(line=line, **COMMENTS),  # type: ignore[arg-type]
        "comments-and-tabs": Form(line=tabs, **COMMENTS),  # type: ignore[arg-type]
        "byte-order-mark": Form(line=line, encode=_with_mark),
        "mark-before-comment": Form(line=line, head="# a run\n", encode=_with_mark),
        "gzip": Form(line=line, encode=_compressed),
        "windows": Form(line=line, encode=_with_windows_ends),
        "empty-lines": Form(line=line + "\n", head="\n \n"),
        "pipe": Form(line=line, is_pipe=True),
    }


MS_MARCO = {
    "ms-marco": Form(line="{query}\t{doc}\t{rank}"),
    "ms-marco-blanks": Form(line="{query} {doc} {rank}"),
    "ms-marco-ids-with-blanks": Form(line="{query}\t{doc}\t{rank}", before_ids="no "),
    "ms-marco-pipe": Form(line="{query}\t{doc}\t{rank}", is_pipe=True),
}
RUN_FORMS = {
    **_forms("{query} Q0 {doc} {rank} {score} bm25"),
    "tag-with-blanks": Form(line="{query} Q0 {doc} {rank} {score} bm25, k1 = 0.9"),
    "tabs-and-tag-with-blanks": Form(line="{query}\tQ0\t{doc}\t{rank}\t{score}\tbm25, k1 = 0.9"),
    **MS_MARCO,
}
BEIR_HEAD = "query-id\tcorpus-id\tscore\n"
QRELS_FORMS = {
    **_forms("{query} 0 {doc} {grade}"),
    "beir": Form(line="{query}\t{doc}\t{grade}", head=BEIR_HEAD),
    "beir-ids-with-blanks": Form(line="{query}\t{doc}\t{grade}", head=BEIR_HEAD, before_ids="no "),
    "beir-mark": Form(line="{query}\t{doc}\t{grade}", head=BEIR_HEAD, encode=_with_mark),
    "beir-comments": Form(line="{query}\t{doc}\t{grade}", head="# judgements\n" + BEIR_HEAD),
    "beir-pipe": Form(line="{query}\t{doc}\t{grade}", head=BEIR_HEAD, is_pipe=True),
}
RUN_ROWS = [dict(zip(("query", "doc", "rank", "score"), row, strict=True)) for row in RUN]
QRELS_ROWS = [dict(zip(("query", "doc", "grade"), row, strict=True)) for row in QRELS]

run_forms = pytest.mark.parametrize("name", RUN_FORMS)


def _cli(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.return_value == 0, done.output
    return done.stdout


def _reciprocal_ranks(run: Path, qrels: Path, folder: Path) -> list[list[str]]:
    _cli("evaluate", run, "--qrels", qrels, "--metrics", "RR", "--per-query", folder / "values")
    return [line.split("\t") for line in (folder / "values").read_text().splitlines()[1:]]


def _expected(form: Form) -> list[list[str]]:
    return [[form.id("q1"), "0.500000"], [form.id("q2"), "1.000000"]]


@run_forms
def test_rank_takes_the_first_stage(tmp_path: Path, name: str) -> None:
    form = RUN_FORMS[name]
    pairs = [(form.id(query), form.id(doc), -1.0) for query, doc, _, _ in RUN]
    scored = write_scored(tmp_path / "scored.parquet", [*pairs])
    ranking = tmp_path / "ranking.parquet"
    with form.written(tmp_path / "run", RUN_ROWS) as run:
        _cli("rank", scored, "--first-stage", run, "--rrf", "--output", ranking)
    found = pq.read_table(ranking).to_pylist()
    assert {(row["query_id"], row["doc_id"]): row["first_stage_score"] for row in found} == {
        (form.id(query), form.id(doc)): -rank if name in MS_MARCO else score
        for query, doc, rank, score in RUN
    }


@run_forms
def test_evaluate_takes_the_run(tmp_path: Path, name: str) -> None:
    form = RUN_FORMS[name]
    lines = (f"{form.id(query)}\t0\t{form.id(doc)}\t{grade}" for query, doc, grade in QRELS)
    qrels = write_lines(tmp_path / "qrels", *lines)
    with form.written(tmp_path / "run", RUN_ROWS) as run:
        assert _reciprocal_ranks(run, qrels, tmp_path) == _expected(form)


@pytest.mark.parametrize("name", QRELS_FORMS)
def test_evaluate_takes_the_judgements(tmp_path: Path, name: str) -> None:
    form = QRELS_FORMS[name]
    lines = (f"{form.id(q)}\tQ0\t{form.id(d)}\t{rank}\t{score}\tx" for q, d, rank, score in RUN)
    run = write_lines(tmp_path / "run", *lines)
    with form.written(tmp_path / "qrels", QRELS_ROWS) as qrels:
        assert _reciprocal_ranks(run, qrels, tmp_path) == _expected(form)


@run_forms
def test_import_takes_the_run(tmp_path: Path, name: str) -> None:
    form = RUN_FORMS[name]
    queries = write_tsv(
        tmp_path / "queries.tsv", [(form.id(query), text) for query, text in QUERIES.items()]
    )
    corpus = write_tsv(
        tmp_path / "corpus.tsv", [(form.id(doc), text) for doc, text in DOCUMENTS.items()]
    )
    tables = ("--queries", queries, "--corpus", corpus)
    with form.written(tmp_path / "run", RUN_ROWS) as run:
        _cli("import", "trec", "--run", run, *tables, "--output", tmp_path / "pairs")
    found = {
        (row["query_id"], row["doc_id"]): (
            row["query"],
            row["document"],
            row["first_stage_rank"],
            row.get("first_stage_score"),
        )
        for row in read_rows(tmp_path / "pairs")
    }
    assert found == {
        (form.id(query), form.id(doc)): (
            QUERIES[query],
            DOCUMENTS[doc],
            rank,
            None if name in MS_MARCO else score,
        )
        for query, doc, rank, score in RUN
    }


@pytest.mark.parametrize("line", ["#q1 Q0 d1 1 2.5 x", "#q1\td1\t1", "#q1\tQ0\td 1\t1\t2.5\tx y"])
def test_run_whose_id_begins_as_a_comment_does_is_refused(tmp_path: Path, line: str) -> None:
    path = write_lines(tmp_path / "run", "q2 Q0 d1 1 2.5 x", line)
    with pytest.raises(ShardError, match="run:2: begins with #, as a comment does, but reads like"):
        list(read_run(str(path)))


def test_judgement_whose_id_begins_as_a_comment_does_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "qrels", "q2 0 d1 1", "#q1 0 d1 1")
    with pytest.raises(ShardError, match="qrels:2: begins with #, as a comment does"):
        read_qrels(str(path))
