"""Where a job's results live."""

import os
from pathlib import Path

from rgpt_batch.config.arguments import Location, as_location, check_text
from rgpt_batch.output.local_store import LocalStore
from rgpt_batch.output.object_store import ObjectStore
from rgpt_batch.output.store import Store
from rgpt_batch.storage.uris import HUB_SCHEME, is_uri, split_uri

__all__ = ["LocalStore", "ObjectStore", "Store", "holds_job", "open_store"]


def open_store(output: Location) -> Store:
    """Open the output folder, a path or a URI; it need not exist yet.

    Raises:
        ConfigError: The URI or path cannot be used as an output folder, or it is neither.
    """
    location = as_location(output, "output")
    if is_uri(location):
        return ObjectStore(location)
    # Its full path goes to readers that take UTF-8 alone.
    check_text(os.path.abspath(location))
    return LocalStore(location)


def holds_job(location: str) -> bool:
    """Whether a path or URI is a folder that a job writes, or has written, its results to.

    Raises:
        ConfigError, StorageError: See open_store and Store.has_manifest.
    """
    if not is_uri(location):
        return Path(location, "_rgpt").is_dir()
    scheme, _, _ = location.partition("://")
    has_key = split_uri(location)[1] != ""
    return has_key and scheme != HUB_SCHEME and open_store(location).has_manifest()
