"""Where a job's results live."""

from rgpt_batch.store.base import Store
from rgpt_batch.store.local import LocalStore

__all__ = ["LocalStore", "Store", "open_store"]


def open_store(output: str) -> Store:
    """Open the output folder; it need not exist yet."""
    return LocalStore(output)
