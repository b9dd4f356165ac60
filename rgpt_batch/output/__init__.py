"""Where a job's results live."""

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.output.local_store import LocalStore
from rgpt_batch.output.object_store import ObjectStore
from rgpt_batch.output.store import Store
from rgpt_batch.storage.uris import is_uri

__all__ = ["LocalStore", "ObjectStore", "Store", "open_store"]


def open_store(output: Location) -> Store:
    """Open the output folder, a path or a URI; it need not exist yet.

    Raises:
        ConfigError: The URI cannot be used as an output folder, or it is no path at all.
    """
    location = as_location(output, "output")
    return ObjectStore(location) if is_uri(location) else LocalStore(location)
