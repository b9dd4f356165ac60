"""Pages of the documentation that are made from the program itself, so that they cannot lag behind.

Each function returns one page in Markdown: commands from click, options from the configuration's
classes, columns from the schema of scored files, exit codes from the command line.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator

import click
import pyarrow as pa
import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rgpt_batch.cli import EXIT_CODES, cli
from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.pairs import SOURCE_FILE, SOURCE_ROW
from rgpt_batch.output.score_file import LABEL_SCHEMA, PAIR_HASH, SCORE_SCHEMA, TOKEN_LOGPROBS
from rgpt_batch.report.rows import REASONS
from rgpt_batch.scoring.pair_hash import NUM_BYTES

_SIGNS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}

# What stands in the columns; when a job writes them, where it does not always.
MEANINGS = {
    "query_id": ("", "As in the input, as text."),
    "doc_id": ("", "As in the input, as text."),
    "score": (
        "",
        "Higher is more relevant. Query likelihood: mean log-probability of the query's tokens, in "
        "nats, at most 0. Null where the row is rejected.",
    ),
    "sum_logprob": ("", "Sum of the query tokens' log-probabilities; null for models that judge."),
    "num_query_tokens": ("", "Query tokens in the prompt."),
    "num_document_tokens": ("", "Document tokens in the prompt."),
    "num_dropped_document_tokens": ("", "Cut from the document's end to fit `--max-length`."),
    "rejection": ("", "Null, or why there is no score."),
    "logit": (
        "models that judge pairs",
        "The logit of relevant, less that of not relevant where the model has such a label.",
    ),
    "num_dropped_query_tokens": ("models that judge pairs", "Cut by the query's own limit."),
    TOKEN_LOGPROBS: ("`output.query_token_logprobs: true`", "One log-probability per query token."),
    PAIR_HASH: (
        "unless `output.pair_hash: false`",
        "Of both texts: `score --reuse` knows the pair by it. Null where the row is rejected.",
    ),
    SOURCE_FILE: ("`output.source: true`", "The input file."),
    SOURCE_ROW: ("`output.source: true`", "The row in it, from 0."),
}
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def pages() -> dict[str, str]:
    """Return all pages by their paths in the documentation."""
    return {
        "reference/commands.md": commands_page(),
        "reference/options.md": options_page(),
        "reference/columns.md": columns_page(),
        "reference/exit-codes.md": exit_codes_page(),
    }


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with its full name."""

    def below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield name, command
            return
        for child_name, child in command.commands.items():
            yield from below(f"{name} {child_name}", child)

    yield from below("rgpt-batch", cli)


def commands_page() -> str:
    """Describe every command with all its arguments and options."""
    parts = [
        "# Commands",
        "Every command, as `--help` shows it. What a job scores with, and how, can also stand in a "
        "configuration file: [options](options.md).",
    ]
    for name, command in commands():
        context = click.Context(command, info_name=name)
        parts.append(f"## {name.removeprefix('rgpt-batch ')}")
        parts.append(_paragraphs(command.help or ""))
        parts.append(f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```")
        records = (param.get_help_record(context) for param in command.params)
        rows = [
            f"| <code>{_cell(names)}</code> | {_cell(text)} |"
            for names, text in filter(None, records)
            if text
        ]
        if rows:
            parts.append("\n".join(["| option | |", "|---|---|", *rows]))
        if command.epilog:
            parts.append(_paragraphs(command.epilog))
    return _joined(parts)


def options() -> Iterator[tuple[str, FieldInfo]]:
    """Yield every option of a configuration that holds a value, by its dotted name."""
    yield from _options(JobConfig, "")


def options_page() -> str:
    """Describe every option of the configuration, section by section."""
    parts = [
        "# Options of a configuration",
        "A configuration is a YAML file (`--config`). Each option can be set on the command line "
        "as well: `-o engine.max_num_seqs=128`. Unknown names are errors.",
    ]
    for section, field in JobConfig.model_fields.items():
        inside = [(name, each) for name, each in options() if name.startswith(f"{section}.")]
        kind = typing.cast("type[BaseModel]", field.annotation)
        rows = [
            f"| `{name}` | {_cell(_kind(each))} | {_cell(_default(each))} | "
            f"{_cell(each.description or '')} |"
            for name, each in inside
        ]
        parts.append(f"## {section}")
        parts.append(_paragraphs(kind.__doc__ or ""))
        parts.append("\n".join(["| option | value | default | |", "|---|---|---|---|", *rows]))
    return _joined(parts)


def columns() -> pa.Schema:
    """Return every column that a scored file can have beside the passed-through ones."""
    optional = pa.schema(
        [
            (TOKEN_LOGPROBS, pa.list_(pa.float32())),
            (PAIR_HASH, pa.binary(NUM_BYTES)),
            (SOURCE_FILE, pa.string()),
            (SOURCE_ROW, pa.int64()),
        ]
    )
    return pa.unify_schemas([SCORE_SCHEMA, LABEL_SCHEMA, optional])


def columns_page() -> str:
    """Describe the columns of scored files, and why rows are rejected."""
    rows = []
    for column in columns():
        when, meaning = MEANINGS[column.name]
        rows.append(f"| `{column.name}` | {_arrow_type(column.type)} | {when} | {meaning} |")
    reasons = [f"| `{reason}` | {_cell(text)} |" for reason, text in REASONS.items()]
    return _joined(
        [
            "# Columns of the output",
            "`scored/part-<unit>.parquet` holds one row for every row of the input, in the order "
            "of the input. The columns that `--pass-through` names come last, as they are in the "
            "input.",
            "\n".join(["| column | type | only with | meaning |", "|---|---|---|---|", *rows]),
            "Each file's footer says what wrote it: fingerprint, unit, model, protocol, engine and "
            "versions.",
            "## Rejected rows",
            "A row that cannot be scored stays in the output. Its score is null, and `rejection` "
            "says why. An empty document is scored.",
            "\n".join(["| rejection | meaning |", "|---|---|", *reasons]),
        ]
    )


def exit_codes() -> dict[str, str]:
    """Return the meaning of each exit code."""
    found = re.findall(r"^  (\d[\d, ]*?)  +(.+)$", EXIT_CODES, flags=re.MULTILINE)
    return dict(found)


def exit_codes_page() -> str:
    """Describe the exit codes."""
    rows = [f"| {codes} | {_cell(text)} |" for codes, text in exit_codes().items()]
    return _joined(
        [
            "# Exit codes",
            "\n".join(["| code | meaning |", "|---|---|", *rows]),
            "2 also stands for an output folder that holds another job. 3 also stands for rows on "
            "damaged pages, and for more rejected rows than `output.max_rejected_fraction` allows.",
            "[What happens to which fault](../reliability.md) has the details.",
        ]
    )


def _options(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        inner, is_list = _section(field.annotation)
        if is_list or inner is None:
            yield prefix + name, field
        if inner is not None:
            yield from _options(inner, f"{prefix}{name}{'[]' if is_list else ''}.")


def _section(annotation: typing.Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the section that an option is, or a list of which it is."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for each in typing.get_args(annotation):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each, True
    return None, False


def _kind(field: FieldInfo) -> str:
    words = _type_words(field.annotation)
    limits = [
        f"{word} {getattr(limit, name):g}"
        for limit in _limits(field)
        for kind, (name, word) in _SIGNS.items()
        if isinstance(limit, kind)
    ]
    return f"{words}, {', '.join(limits)}" if limits else words


def _limits(field: FieldInfo) -> Iterator[object]:
    yield from field.metadata
    for each in (field.annotation, *typing.get_args(field.annotation)):
        for limit in getattr(each, "__metadata__", ()):
            yield from getattr(limit, "metadata", (limit,))


def _type_words(annotation: typing.Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin is typing.Annotated:
        return _type_words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        given = [_type_words(each) for each in arguments if each is not types.NoneType]
        return " or ".join(given)
    if origin is tuple:
        return "list of texts" if arguments[0] is str else "list"
    return "mapping" if origin is dict else _WORDS[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "to be set"
    value = field.get_default()
    if value is None or value == () or value == {}:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    return f"`{text}`"


def _arrow_type(kind: pa.DataType) -> str:
    # Arrow calls float32 float.
    return _cell(re.sub(r"\bfloat\b", "float32", str(kind)))


def _paragraphs(text: str) -> str:
    """Turn help as click takes it into Markdown: what follows a backspace keeps its lines."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in part.splitlines()]
        if lines[0] == "\b":
            kept = [line.rstrip() for line in part.splitlines()[1:]]
            parts.append("```text\n" + "\n".join(kept) + "\n```")
        elif (example := " ".join(lines)).startswith("Example: "):
            parts.append(f"```sh\n{example.removeprefix('Example: ')}\n```")
        else:
            parts.append(" ".join(lines))
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    """Fit a text into a cell of a table."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "&#124;").replace("*", "\\*")


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
