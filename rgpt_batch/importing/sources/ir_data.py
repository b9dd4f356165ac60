"""Data sets of ir_datasets (https://ir-datasets.com), by name.

Texts are what the data set's own `default_text()` gives: for most documents with a title, title and
body; where there is none, the field `text`. The package downloads what it needs on first use, to
~/.ir_datasets or $IR_DATASETS_HOME.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rgpt_batch.config.arguments import Location
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.readers.relations import LINE, SCORE, Relations, Table
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.text import spool_rows
from rgpt_batch.importing.sources.trec import open_run


@dataclass(frozen=True, slots=True, kw_only=True)
class IrDatasetsSource:
    """A data set with its candidates.

    Attributes:
        candidates: A run's path goes to `run`; otherwise the data set's own candidates
            (`scoreddocs`) or what its qrels judge.
    """

    name: str
    run: Location | None
    candidates: Literal["scoreddocs", "qrels"]

    def open(self, spool: Spool) -> Relations:
        """Read the candidates, then queries and documents.

        Raises:
            ConfigError: The package is missing, or it has no such data set, or the data set lacks
                something.
            ShardError: The data set cannot be read.
        """
        dataset = self._load()
        needed = ["queries", "docs"] if self.run else [self.candidates, "queries", "docs"]
        if missing := [entity for entity in needed if not dataset.has(entity)]:
            raise ConfigError(
                f"ir_datasets '{self.name}' has no {missing[0]}. Choose a subset that has, give a "
                "run with --run, or take the judged pairs with --qrels."
            )
        if self.run is not None:
            candidates = open_run(self.run, spool)
        elif self.candidates == "qrels":
            rows = ((qrel.query_id, qrel.doc_id) for qrel in dataset.qrels_iter())
            candidates = self._spool("qrels", ("query_id", "doc_id"), rows, spool)
        else:
            scored = ((d.query_id, d.doc_id, d.score) for d in dataset.scoreddocs_iter())
            candidates = self._spool("scoreddocs", ("query_id", "doc_id", SCORE), scored, spool)
        queries = ((query.query_id, self._text(query)) for query in dataset.queries_iter())
        documents = ((doc.doc_id, self._text(doc)) for doc in dataset.docs_iter())
        return Relations(
            candidates=candidates,
            queries=self._spool("queries", ("query_id", "query"), queries, spool),
            documents=self._spool("docs", ("doc_id", "document"), documents, spool),
        )

    def _load(self) -> Any:
        try:
            import ir_datasets
        except ImportError as error:
            raise ConfigError(
                "the package ir_datasets is not installed. Run "
                "`pip install 'rgpt-batch[ir-datasets]'`."
            ) from error
        try:
            return ir_datasets.load(self.name)
        except KeyError as error:
            raise ConfigError(
                f"ir_datasets has no data set '{self.name}'. `ir_datasets list` names them all."
            ) from error

    def _text(self, record: Any) -> Any:
        """Return what a query or document says; some kinds do not tell it themselves."""
        if (default_text := getattr(record, "default_text", None)) is not None:
            return default_text()
        if isinstance(text := getattr(record, "text", None), str):
            return text
        raise ConfigError(
            f"ir_datasets '{self.name}': a {type(record).__name__} has no text, but "
            f"{', '.join(getattr(record, '_fields', ()))}. Write the texts to a table and give it "
            "to `import trec` or `import pairs`."
        )

    def _spool(
        self, entity: str, roles: Sequence[str], rows: Iterator[Sequence[Any]], spool: Spool
    ) -> Table:
        origin = f"{self.name} {entity}"
        numbered = ((number, row) for number, row in enumerate(rows, 1))
        try:
            columns = {role: role for role in roles}
            return spool_rows(origin, columns, numbered, spool).without(LINE)
        except (ImportError, OSError, RuntimeError) as error:
            # What ir_datasets raises where a download fails or a parser is not installed.
            raise ShardError(
                f"ir_datasets could not give the {entity} of '{self.name}': {error}. Check the "
                "connection and ~/.ir_datasets, then run the same command again."
            ) from error
