"""What every kind of table needs: do its columns fit, and what is safe to say of its errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa

from rgpt_batch.errors import CommitError, ConfigError, RgptBatchError
from rgpt_batch.storage.object_errors import safe_text

_SECRET = re.compile(r"key|token|secret|password|credential|uri", re.IGNORECASE)
# What follows is the library's own structure, or a trace of ours.
_NOISE = re.compile(r"Detail: Python exception|\[SQL:|\(Background on this error")
_COLOUR = re.compile(r"\x1b\[[\d;]*m|↳")
# Some stores quote keys and signatures in their answers; these two parts are safe.
_ANSWER = re.compile(r"<\?xml.*|<Error.*", re.DOTALL)
_PART = re.compile(r"<(?:Code|Message)>([^<\n]*)")
_MAX_LENGTH = 600


def fitting_schema(table: str, there: pa.Schema, ours: pa.Schema) -> pa.Schema:
    """Return the columns of a table that exists, where they are ours.

    Raises:
        ConfigError: It has other columns, or other types.
    """
    problems = [
        *(f"it has no column {name}" for name in ours.names if name not in there.names),
        *(f"its column {name} is not ours" for name in there.names if name not in ours.names),
        *(
            f"its column {field.name} is {there.field(field.name).type}, ours {field.type}"
            for field in ours
            if field.name in there.names
            and _comparable(there.field(field.name).type) != _comparable(field.type)
        ),
    ]
    if problems:
        raise ConfigError(
            f"{table}: the table does not fit the output: {'; '.join(problems)}. Publish to "
            "another table, change this one, or change what the job writes (--partition, "
            "output.pass_through)."
        )
    return pa.schema([pa.field(field.name, field.type) for field in there])


def _comparable(kind: pa.DataType) -> pa.DataType:
    """Return one type for all that formats do not tell apart."""
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("element", _comparable(kind.value_type)))
    return kind


@contextmanager
def table_errors(
    table: str, kinds: tuple[type[Exception], ...], secrets: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Turn a library's errors into ours, without credentials.

    Args:
        table: What the user calls the table.
        kinds: What the library raises.
        secrets: Settings whose values must not be shown.

    Raises:
        CommitError: The library failed. Our own errors pass, also those that it has swallowed.
    """
    failure: Exception
    try:
        yield
        return
    except RgptBatchError:
        raise
    except kinds as error:
        failure = CommitError(
            f"{table}: {type(error).__name__}: {_shown(error, secrets or {})} Running the same "
            "command again is safe."
        )
    # The original may quote secrets.
    raise failure from None


def _shown(error: Exception, secrets: Mapping[str, str]) -> str:
    text = _NOISE.split(safe_text(error), maxsplit=1)[0]
    text = _ANSWER.sub(lambda answer: " ".join(_PART.findall(answer[0])), _COLOUR.sub("", text))
    text = ": ".join(line.strip() for line in text.splitlines() if line.strip())
    text = text[:_MAX_LENGTH].rstrip(". ")
    for name, value in secrets.items():
        if value and _SECRET.search(name):
            text = text.replace(value, "***")
    return f"{text}."
