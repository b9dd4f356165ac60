"""What the fingerprint covers, spelled as in the YAML that a user writes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import yaml

from rgpt_batch.planning.identity import Identity, PairFiles
from rgpt_batch.report.numbers import DASH

_CONSTANTS = {"True": "true", "False": "false", "None": "null"}


def settings(identity: Identity, model: str | None) -> dict[str, str]:
    """Return setting → value, without the list of files.

    Args:
        identity: The job's.
        model: The name that the configuration gives the model; None where it is not known.
    """
    return dict(_settings(identity, model))


def _settings(identity: Identity, model: str | None) -> Iterator[tuple[str, str]]:
    if isinstance(identity.input, PairFiles):
        yield "input", _first_of(identity.input.paths)
    else:
        for name, found in identity.input.tables.items():
            yield f"input {name}", _first_of(found.paths)
        for name, value in identity.input.settings.items():
            yield name, _as_yaml(value)
    if model is not None:
        yield "model.name", model
    for name, value in identity.scoring.items():
        # Of these the identity knows the content, not the name.
        yield f"{name} files" if name in ("model", "tokenizer") else name, _as_yaml(value)
    for role in ("query_id", "doc_id", "query", "document"):
        yield f"input.columns.{role}", getattr(identity.columns, role)
    yield "output.pass_through", _flow(list(identity.columns.pass_through))
    for name, value in asdict(identity.written).items():
        yield f"output.{name}", _as_yaml(str(value))


def _as_yaml(text: str) -> str:
    """Spell a value of the identity, which is Python's or JSON's, as YAML does."""
    if text[:1] in ("[", "{"):
        try:
            return _flow(json.loads(text))
        except ValueError:
            return text
    return _CONSTANTS.get(text, text)


def _flow(value: object) -> str:
    return yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
    ).strip()


def _first_of(paths: Sequence[str]) -> str:
    if not paths:
        return DASH
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1:,} more"
