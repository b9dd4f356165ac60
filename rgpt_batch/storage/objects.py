"""Objects in S3, Google Cloud Storage and Azure.

Every call is tried again with growing, random pauses while the store is throttling, failing or out
of reach, and raises a StorageError when that does not help. Settings and credentials come from the
environment (AWS_*, GOOGLE_*, AZURE_*) or the machine's role; among them AWS_TIMEOUT, how long one
request may take (default 30s), and AWS_MAX_ATTEMPTS.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rgpt_batch.errors import ShardError, StorageError
from rgpt_batch.storage.connections import connect, max_attempts
from rgpt_batch.storage.object_errors import (
    ConditionsUnsupportedError,
    ObjectChangedError,
    translated,
)
from rgpt_batch.storage.range_file import RangeFile
from rgpt_batch.storage.uris import OBJECT_SCHEMES, split_uri

_Answer = TypeVar("_Answer")
Content = bytes | memoryview

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
# Where an object's metadata names the attempt that has written it.
_ATTEMPT = "attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a store says of an object.

    Attributes:
        etag: Changes whenever the content does; None where the store has none.
    """

    uri: str
    size: int
    etag: str | None

    @property
    def version(self) -> str:
        """Changes whenever the object does."""
        return f"{self.size}-{self.etag}"


def head(uri: str) -> ObjectInfo:
    """Look an object up.

    Raises:
        FileNotFoundError: There is none.
        StorageError: The store cannot be used.
    """
    import obstore

    store, key = connect(uri)
    found = _patiently(uri, lambda: obstore.head(store, key))
    return ObjectInfo(uri=uri, size=found["size"], etag=found["e_tag"])


def read(uri: str) -> bytes:
    """Read a whole object; errors as head."""
    import obstore

    store, key = connect(uri)
    return _patiently(uri, lambda: obstore.get(store, key).bytes().to_bytes())


def create(uri: str, content: Content, attempt: str) -> bool:
    """Write an object that does not exist yet, in one request.

    The object carries the attempt's name. A write whose answer was lost finds the name taken when
    it is tried again; the name tells whether by itself.

    Returns:
        False where another attempt has written it.

    Raises:
        StorageError: It could not be written; where is_transient is set, it may exist all the same.
    """
    import obstore

    store, key = connect(uri)

    def put(mode: Any) -> None:
        obstore.put(store, key, content, mode=mode, attributes={_ATTEMPT: attempt})

    try:
        _patiently(uri, lambda: put("create"))
    except FileExistsError:
        return _attempt_of(uri) == attempt
    except ConditionsUnsupportedError:
        # A store without conditional writes: the key is the same for all attempts, so that a late
        # one replaces the rows by the same rows instead of adding to them.
        try:
            return _attempt_of(uri) == attempt
        except FileNotFoundError:
            _patiently(uri, lambda: put("overwrite"))
    return True


def replace(uri: str, content: Content) -> None:
    """Write an object, over an old one if there is one."""
    import obstore

    store, key = connect(uri)
    _patiently(uri, lambda: obstore.put(store, key, content, use_multipart=False))


def delete(uris: Sequence[str]) -> None:
    """Delete objects of one bucket; absent ones do not matter."""
    import obstore

    if uris:
        keys = [connect(uri)[1] for uri in uris]
        store, _ = connect(uris[0])
        _patiently(uris[0], lambda: obstore.delete(store, keys))


def list_folder(uri: str) -> dict[str, int]:
    """Return the names directly below a folder: objects with their sizes, folders with 0."""
    objects, folders = _list(uri)
    return {name: meta["size"] for name, meta in objects.items()} | dict.fromkeys(folders, 0)


def list_objects(uri: str) -> dict[str, ObjectInfo]:
    """Return what a store says of the objects directly below a folder, by name."""
    objects, _ = _list(uri)
    root = uri.rstrip("/")
    return {
        name: ObjectInfo(uri=f"{root}/{name}", size=meta["size"], etag=meta["e_tag"])
        for name, meta in objects.items()
    }


def list_versions(uri: str) -> dict[str, str]:
    """Return the names of the objects directly below a folder, with what a new version changes."""
    objects, _ = _list(uri)
    return {name: f"{meta['e_tag']}-{meta['last_modified']}" for name, meta in objects.items()}


def _list(uri: str) -> tuple[dict[str, Any], list[str]]:
    """Return what a store says of the objects directly below a folder, and the folders' names."""
    import obstore

    store, key = connect(uri)
    found = _patiently(uri, lambda: obstore.list_with_delimiter(store, key or None))

    def name(path: str) -> str:
        return path.removeprefix(key).lstrip("/")

    # Consoles mark a folder by an empty object of its name.
    objects = {name(meta["path"]): meta for meta in found["objects"] if meta["path"] != key}
    return objects, [name(path) for path in found["common_prefixes"]]


def list_tree(uri: str) -> dict[str, int]:
    """Return the URIs of all objects below a folder, with their sizes.

    A listing does not tell `x/`, which is empty and marks a folder, from `x`.
    """
    import obstore

    store, key = connect(uri)
    found = _patiently(uri, lambda: obstore.list(store, key or None).collect())
    root, _ = split_uri(uri)
    sizes: dict[str, int] = {}
    for meta in found:
        if (path := meta["path"]) != key:
            sizes[f"{root}/{path}"] = max(meta["size"], sizes.get(f"{root}/{path}", 0))
    return sizes


def open_object(uri: str) -> tuple[ObjectInfo, RangeFile]:
    """Open an object to read.

    All bytes come from the version that was there on opening: a request for another one fails.

    Returns:
        What the store says of the object, and the file. Reading it raises a ShardError where the
        object was replaced or deleted, and a StorageError where the store cannot be used.

    Raises:
        FileNotFoundError: There is no such object.
        StorageError: The store cannot be used.
    """
    info = head(uri)
    return info, RangeFile(info.size, functools.partial(read_range, info))


def read_range(info: ObjectInfo, start: int, end: int) -> bytes:
    """Return the bytes start … end - 1 of an object, at the version that was looked up.

    Raises:
        ShardError: The object was replaced or deleted.
        StorageError: The store cannot be used.
    """
    import obstore

    store, key = connect(info.uri)
    options: Any = {"range": (start, end), "if_match": info.etag}

    def get() -> bytes:
        content = obstore.get(store, key, options=options).bytes().to_bytes()
        if len(content) != end - start:
            raise StorageError(f"{info.uri}: an answer was cut short.", is_transient=True)
        return content

    try:
        return _patiently(info.uri, get)
    except (FileNotFoundError, ObjectChangedError) as error:
        raise ShardError(
            f"{info.uri}: the object was replaced or deleted while it was read. Bring the old one "
            "back, or run the job again with --on-change overwrite."
        ) from error


def _attempt_of(uri: str) -> str | None:
    """Name the attempt that has written an object."""
    import obstore

    store, key = connect(uri)
    found = _patiently(uri, lambda: obstore.get(store, key, options={"head": True}).attributes)
    return found.get(_ATTEMPT)


def _patiently(uri: str, call: Callable[[], _Answer]) -> _Answer:
    """Call until it succeeds, or until another try is of no use."""
    from obstore.exceptions import BaseError

    num_left = max_attempts(OBJECT_SCHEMES[uri.partition("://")[0]])
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except (BaseError, StorageError, OSError) as error:
            failure = translated(uri, error)
        num_left -= 1
        is_transient = isinstance(failure, StorageError) and failure.is_transient
        if not is_transient or num_left < 1:
            break
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    # Outside of the handler, so that the original, which may quote secrets, is not shown with it.
    raise failure
