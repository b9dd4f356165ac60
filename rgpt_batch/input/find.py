"""Which Parquet files a command's arguments mean, on disk and in object stores."""

from __future__ import annotations

from collections.abc import Sequence

from rgpt_batch.errors import ConfigError
from rgpt_batch.storage.find import find
from rgpt_batch.storage.uris import resolved


def resolve_inputs(inputs: Sequence[str]) -> list[str]:
    """Expand files, folders and glob patterns, local or URIs, to absolute paths of shards.

    Every file appears once, in the order of the arguments, then by name; see storage.find.

    Raises:
        ConfigError: An argument names nothing, or a folder cannot be listed.
    """
    files: dict[str, str] = {}
    for argument in inputs:
        try:
            for file in find(argument):
                files.setdefault(resolved(file), file)
        except OSError as error:
            raise ConfigError(
                f"{argument}: cannot be listed: {error}. Check permissions."
            ) from error
    if not files:
        raise ConfigError("no input: name at least one Parquet file, folder or pattern.")
    return list(files.values())
