"""Which Parquet files a command's arguments mean, on disk and in object stores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from rgpt_batch.config.arguments import as_location, check_text
from rgpt_batch.errors import ConfigError
from rgpt_batch.storage.find import Found, find
from rgpt_batch.storage.selection import Reason, describe
from rgpt_batch.storage.uris import identities

_logger = logging.getLogger(__name__)


def resolve_inputs(inputs: Sequence[str], expand: Callable[[str], Found] = find) -> list[str]:
    """Expand files, folders and glob patterns, local or URIs, to absolute paths of shards.

    Every file appears once, in the order of the arguments, then by name; see storage.find. What is
    left out is logged, a line for each reason.

    Args:
        inputs: What the user named.
        expand: Says what an argument stands for; errors as find.

    Raises:
        ConfigError: An argument names nothing or what cannot be used, or a folder cannot be listed.
    """
    files: dict[str, str] = {}
    left_out: dict[Reason, list[str]] = {}
    for argument in inputs:
        try:
            found = expand(as_location(argument, "input"))
            for reason, names in found.left_out.items():
                left_out.setdefault(reason, []).extend(names)
            for file in found.files:
                check_text(file)
            for file, name in zip(found.files, identities(found.files), strict=True):
                if name in files:
                    left_out.setdefault(Reason.TWICE, []).append(file)
                else:
                    files[name] = file
        except OSError as error:
            raise ConfigError(
                f"{argument}: cannot be listed: {error}. Check permissions."
            ) from error
    if not files:
        raise ConfigError("no input: name at least one Parquet file, folder or pattern.")
    for reason, names in left_out.items():
        _logger.warning(describe(reason, list(dict.fromkeys(names))))
    return list(files.values())
