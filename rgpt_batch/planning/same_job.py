"""Are two identities the same job, and if not, what is different? In words for people.

A file may be spelled in several ways: from another working folder, with `..`, through a link. An
identity holds absolute paths without `..`; links stay, since another machine may know the file by
that name alone. Two paths are the same file if they are equal, or lead to the same place now.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from rgpt_batch.formatting import format_count
from rgpt_batch.planning.identity import (
    Identity,
    InputFacts,
    InputFile,
    Lines,
    PairFiles,
    RowOrder,
    Selection,
    TableFiles,
)
from rgpt_batch.storage.files import local_path
from rgpt_batch.storage.uris import full_paths, resolved

_NUM_DIFFERENCES_SHOWN = 12
_ORDERS: dict[RowOrder, str] = {
    "input": "the input's (units.order=input)",
    "document": "by document (units.order=document)",
    "restored": "the input's, scored by document (units.order=document, output.order=input)",
}


def with_full_paths(facts: InputFacts) -> InputFacts:
    """Spell local paths as an identity holds them."""
    only = facts.only and replace(facts.only, files=_in_full(facts.only.files))
    if isinstance(facts, PairFiles):
        return replace(facts, files=_in_full(facts.files), only=only)
    queries, documents = facts.queries, facts.documents
    return replace(
        facts,
        candidates=replace(facts.candidates, files=_in_full(facts.candidates.files)),
        queries=queries and replace(queries, files=_in_full(queries.files)),
        documents=documents and replace(documents, files=_in_full(documents.files)),
        only=only,
    )


def is_same_job(old: Identity, new: Identity) -> bool:
    """Whether an output that was planned with the old identity can be continued with the new."""
    return next(_differences(old, new), None) is None


def differences(old: Identity, new: Identity) -> str:
    """Describe what changed from one identity to the other, one line each."""
    return _shown(_differences(old, new))


def setting_differences(old: Lines, new: Lines) -> str:
    """Describe which settings changed, one line each."""
    return _shown(_changed_settings(old, new))


def _in_full(files: Sequence[InputFile]) -> tuple[InputFile, ...]:
    local = [file.path for file in files if local_path(file.path)]
    full = dict(zip(local, full_paths(local), strict=True))
    return tuple(replace(file, path=full.get(file.path, file.path)) for file in files)


def _differences(old: Identity, new: Identity) -> Iterator[str]:
    yield from _changed_settings(old.settings, new.settings)
    before, now = old.input, new.input
    yield from _changed_selection(before.only, now.only)
    if isinstance(before, PairFiles) and isinstance(now, PairFiles):
        if before.order != now.order:
            yield f"order of rows: was {_ORDERS[before.order]}, is {_ORDERS[now.order]}"
        yield from _changed_files("input", before.files, now.files)
    elif isinstance(before, TableFiles) and isinstance(now, TableFiles):
        yield from _changed_settings(before.settings, now.settings)
        for name in dict.fromkeys((*before.tables, *now.tables)):
            tables = (side.tables.get(name) for side in (before, now))
            files = [() if table is None else table.files for table in tables]
            yield from _changed_files(f"input {name}", *files)
    elif isinstance(now, TableFiles):
        yield "input: was pairs with their texts, is joined with tables of texts"
    else:
        yield "input: was joined with tables of texts, is pairs with their texts"


def _changed_selection(old: Selection | None, new: Selection | None) -> Iterator[str]:
    shown = [
        "all pairs" if only is None else f"the top {only.top_k:,} of a ranking"
        for only in (old, new)
    ]
    if shown[0] != shown[1]:
        yield f"--only: was {shown[0]}, is {shown[1]}"
    yield from _changed_files("--only", old.files if old else (), new.files if new else ())


def _changed_settings(old: Lines, new: Lines) -> Iterator[str]:
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            yield f"{key}: was {old.get(key, '(absent)')}, is {new.get(key, '(absent)')}"


def _changed_files(what: str, old: Sequence[InputFile], new: Sequence[InputFile]) -> Iterator[str]:
    by_name = {file.path: file for file in new}
    is_renamed = any(file.path not in by_name for file in old)
    by_place = {resolved(file.path): file for file in new} if is_renamed else {}
    found: set[str] = set()
    for file in old:
        now = by_name.get(file.path) or by_place.get(resolved(file.path))
        if now is None:
            yield f"{what} {file.path}: was read, is not named now"
            continue
        found.add(now.path)
        if (file.version, file.num_row_groups) != (now.version, now.num_row_groups):
            was, is_now = _described(file), _described(now)
            # The store's own marks say nothing to people, where size and time are the same.
            if was == is_now:
                yield f"{what} {now.path}: was written again, {is_now}"
            else:
                yield f"{what} {now.path}: was {was}; is {is_now}"
    for file in new:
        if file.path not in found:
            yield f"{what} {file.path}: is new"


def _described(file: InputFile) -> str:
    """Say what a file's version and its number of row groups mean; see files.open_version."""
    size, _, mark = file.version.partition("-")
    parts = [format_count(int(size), "byte") if size.isdecimal() else file.version]
    # Nanoseconds up to the year 2286; a plan may hold anything.
    if mark.isdecimal() and len(mark) <= 19 and local_path(file.path):
        written = datetime.fromtimestamp(int(mark) / 1e9, UTC)
        parts.append(f"written {written:%Y-%m-%d %H:%M:%S} UTC")
    parts.append(format_count(file.num_row_groups, "row group"))
    return ", ".join(parts)


def _shown(changed: Iterable[str]) -> str:
    lines = [f"  {line}" for line in changed]
    if len(lines) > _NUM_DIFFERENCES_SHOWN:
        more = f"  … and {len(lines) - _NUM_DIFFERENCES_SHOWN} more"
        lines = [*itertools.islice(lines, _NUM_DIFFERENCES_SHOWN), more]
    return "\n".join(lines)
