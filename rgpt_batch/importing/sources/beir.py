"""Folders in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/<split>.tsv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rgpt_batch.config.arguments import Location
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.readers.relations import (
    BEIR_DOCUMENTS,
    BEIR_QUERIES,
    LINE,
    Relations,
    Table,
)
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.tables import open_table
from rgpt_batch.importing.readers.text import spool_rows
from rgpt_batch.importing.readers.trec import read_qrels
from rgpt_batch.importing.sources.trec import open_run


@dataclass(frozen=True, slots=True, kw_only=True)
class BeirSource:
    """A BEIR folder with its candidates.

    Attributes:
        run: A run; or None, then what the qrels judge are the candidates.
        split: Of the qrels.
    """

    folder: Location
    run: Location | None
    split: str

    def open(self, spool: Spool) -> Relations:
        """Read the candidates, then the folder."""
        qrels = Path(self.folder, "qrels", f"{self.split}.tsv")
        if self.run is not None:
            candidates = open_run(self.run, spool)
        elif qrels.is_file():
            candidates = judged_pairs(str(qrels), spool)
        else:
            splits = ", ".join(sorted(path.stem for path in qrels.parent.glob("*.tsv")))
            raise ConfigError(
                f"{qrels}: no such file; there is {splits or 'none'}. Set --split, or give a run."
            )
        return Relations(
            candidates=candidates,
            queries=open_table(self._find("queries"), BEIR_QUERIES, spool),
            documents=open_table(self._find("corpus"), BEIR_DOCUMENTS, spool),
        )

    def _find(self, name: str) -> str:
        for path in (Path(self.folder, f"{name}.jsonl"), Path(self.folder, f"{name}.jsonl.gz")):
            if path.is_file():
                return str(path)
        raise ConfigError(
            f"{Path(self.folder, name)}.jsonl: no such file. A BEIR folder holds corpus.jsonl, "
            "queries.jsonl and qrels/; tables in other files are read by `import trec`."
        )


def judged_pairs(path: str, spool: Spool) -> Table:
    """Return what qrels judge, relevant or not, as candidates; the grade is left out."""
    rows = (
        (0, (query_id, doc_id))
        for query_id, judged in read_qrels(path).items()
        for doc_id in judged
    )
    columns = {"query_id": "query_id", "doc_id": "doc_id"}
    return spool_rows(path, columns, rows, spool).without(LINE)
