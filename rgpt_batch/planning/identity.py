"""What a job is: everything that changes its rows or its scores, and nothing else.

Not the number of workers, not batch sizes. Two jobs with the same identity can share an output
folder. Programs read the fields; people, and the fingerprint, get the same facts as lines of text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.columns import Columns
from rgpt_batch.planning.scoring_settings import scoring_settings

# Setting → value.
Lines = Mapping[str, str]

# What becomes of the order of rows: left as it is, clustered by document, or clustered for scoring
# and brought back into input order at the end.
RowOrder = Literal["input", "document", "restored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One Parquet file of the input.

    Attributes:
        version: Changes whenever the file does.
    """

    path: str
    version: str
    num_row_groups: int

    def __str__(self) -> str:
        return f"{self.version}, {self.num_row_groups} row groups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """An earlier ranking whose best pairs alone are scored.

    Attributes:
        ranking: What the user named, with its full path.
        top_k: Pairs per query.
    """

    ranking: str
    top_k: int
    files: tuple[InputFile, ...]

    def lines(self) -> dict[str, str]:
        """Say which files these are, and how many of their pairs count."""
        files = {f"input only {file.path}": str(file) for file in self.files}
        return {"input only top": str(self.top_k), **files}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFiles:
    """An input that holds ids and texts."""

    kind: Literal["pairs"] = "pairs"
    files: tuple[InputFile, ...]
    order: RowOrder = "input"
    only: Selection | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All files, in input order."""
        return tuple(file.path for file in self.files)

    @property
    def settings(self) -> dict[str, str]:
        """What is done to the order of rows, as text; nothing where it is left as it is."""
        if self.order == "input":
            return {}
        output = "input" if self.order == "restored" else "units"
        return {"units.order": "document", "output.order": output}

    def lines(self) -> dict[str, str]:
        """Say which files these are, and what is done to the order of their rows."""
        files = {f"input {file.path}": str(file) for file in self.files}
        return {**self.settings, **files, **(self.only.lines() if self.only else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTable:
    """One of the tables that an input is joined from.

    Attributes:
        columns: Names of the files' columns by role.
    """

    columns: dict[str, str]
    files: tuple[InputFile, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the table."""
        return tuple(file.path for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFiles:
    """An input of candidates whose texts stand in tables of their own.

    Attributes:
        queries: None where the candidates hold the text of their query.
        documents: None where the candidates hold the text of their document.
    """

    kind: Literal["tables"] = "tables"
    candidates: InputTable
    queries: InputTable | None
    documents: InputTable | None
    only: Selection | None = None

    @property
    def tables(self) -> dict[str, InputTable]:
        """The tables that there are, by name."""
        named = {
            "candidates": self.candidates,
            "queries": self.queries,
            "documents": self.documents,
        }
        return {name: table for name, table in named.items() if table is not None}

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of all tables."""
        return tuple(path for table in self.tables.values() for path in table.paths)

    @property
    def settings(self) -> dict[str, str]:
        """How the tables are read, as text."""
        columns = {
            f"input columns of {name}": json.dumps(table.columns)
            for name, table in self.tables.items()
        }
        return {"input order": "doc_id, query_id", **columns}

    def lines(self) -> dict[str, str]:
        """Say which files and columns these are."""
        files = {
            f"input {name} {file.path}": str(file)
            for name, table in self.tables.items()
            for file in table.files
        }
        return {**self.settings, **files, **(self.only.lines() if self.only else {})}


InputFacts = PairFiles | TableFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenColumns:
    """Which columns the output has beside those that it always has."""

    query_token_logprobs: bool
    source: bool
    pair_hash: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Everything that changes scores or rows.

    Attributes:
        scoring: What decides the score of a pair, whatever its ids and its file: the model, the
            prompt, the engine.
        columns: Of the pairs.
    """

    scoring: dict[str, str]
    columns: Columns
    written: WrittenColumns
    input: InputFacts

    @property
    def judges(self) -> bool:
        """Whether the model judges pairs: scores are made of logits of labels."""
        return "score.kind" in self.scoring

    @property
    def has_logprobs(self) -> bool:
        """Whether scores are logprobs, which are at most 0, and not bare logits."""
        return self.scoring.get("score.not_relevant") != "None"

    @property
    def score_unit(self) -> str:
        """The unit of scores and of their differences; empty where they are logits."""
        return "nats" if self.has_logprobs else ""

    @property
    def score_meaning(self) -> str:
        """What the column score holds."""
        if not self.judges:
            return "mean log-probability of the query's tokens, nats"
        return "log-probability of relevant, nats" if self.has_logprobs else "logit of relevant"

    @property
    def settings(self) -> dict[str, str]:
        """All of it but the input, as text."""
        columns = self.columns
        return {
            **self.scoring,
            "columns": json.dumps(
                [columns.query_id, columns.doc_id, columns.query, columns.document]
            ),
            "output.pass_through": json.dumps(columns.pass_through),
            "output.query_token_logprobs": str(self.written.query_token_logprobs),
            "output.source": str(self.written.source),
            "output.pair_hash": str(self.written.pair_hash),
        }

    @property
    def lines(self) -> dict[str, str]:
        """All of it as text."""
        return {**self.settings, **self.input.lines()}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that two identities share only if they are equal."""
        return fingerprint(self.lines)


def job_identity(config: JobConfig, columns: Columns, facts: InputFacts) -> Identity:
    """Collect everything that changes scores or rows.

    Args:
        config: The job's, with the model pinned.
        columns: Of the pairs.
        facts: What the input consists of.

    Raises:
        ConfigError: The model or the tokenizer cannot be identified.
    """
    return Identity(
        scoring=scoring_settings(config),
        columns=columns,
        written=WrittenColumns(
            query_token_logprobs=config.output.query_token_logprobs,
            source=config.output.source,
            pair_hash=config.output.pair_hash,
        ),
        input=facts,
    )


def fingerprint(lines: Lines) -> str:
    """Return 16 hexadecimal digits that two sets of lines share only if they are equal."""
    return hashlib.sha256(json.dumps(dict(lines), sort_keys=True).encode()).hexdigest()[:16]
