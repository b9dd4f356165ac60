"""Where a job's results live."""

from rgpt_batch.store.base import Store
from rgpt_batch.store.local import LocalStore
from rgpt_batch.store.object import ObjectStore
from rgpt_batch.uris import is_uri

__all__ = ["LocalStore", "ObjectStore", "Store", "open_store"]


def open_store(output: str) -> Store:
    """Open the output folder, a path or a URI; it need not exist yet.

    Raises:
        ConfigError: The URI cannot be used as an output folder.
    """
    return ObjectStore(output) if is_uri(output) else LocalStore(output)
