"""What identified a job in plans of version 0.1.0, which were lines of text alone."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rgpt_batch.input.columns import Columns
from rgpt_batch.planning.identity import (
    Identity,
    InputFile,
    InputTable,
    Lines,
    PairFiles,
    TableFiles,
    WrittenColumns,
)


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
