"""What an object store's refusals and silences mean, told without secrets.

Messages repeat a store's error code and message, and nothing else of its answer: some stores quote
keys and signatures there.
"""

from __future__ import annotations

import errno
import os
import re

from rgpt_batch.errors import ConfigError, StorageError
from rgpt_batch.storage.uris import OBJECT_SCHEMES, redacted

# What a later attempt can cure, besides most 5xx and lost connections.
_TRANSIENT_STATUSES = {"408", "429"}
_TRANSIENT_CODES = {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown"}

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([\w.]+)</Code>")
# Azure adds lines with ids and times.
_MESSAGE = re.compile(r"<Message>([^<\n]*)")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|SAS|PASSWORD|CREDENTIAL")
# The places where a machine's role is asked for.
_ROLE_SERVICE = re.compile(r"/latest/(api/token|meta-data)|/metadata/identity|computeMetadata")


class ObjectChangedError(Exception):
    """An object has another version than the one that was asked for."""


class ConditionsUnsupportedError(StorageError):
    """A store has no conditional writes."""


def translated(uri: str, error: Exception) -> Exception:
    """Turn a library's error into FileNotFoundError, FileExistsError or one of ours."""
    from obstore import exceptions

    if isinstance(error, StorageError):
        return error
    # What follows is a dump of the library's own structures.
    text = str(error).partition("\n\nDebug source:")[0]
    status, code, message = (_first(pattern, text) for pattern in (_STATUS, _CODE, _MESSAGE))
    answer = _masked(" ".join(filter(None, (status, code, message)))).rstrip(".")
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return ConfigError(f"{uri}: there is no such bucket. Check its name and the endpoint.")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such object", uri)
    if isinstance(error, exceptions.AlreadyExistsError) and code not in _TRANSIENT_CODES:
        return FileExistsError(errno.EEXIST, "the object exists", uri)
    if isinstance(error, exceptions.PreconditionError):
        return ObjectChangedError(uri)
    if isinstance(error, exceptions.InvalidPathError):
        return StorageError(
            f"{uri}: below it is an object with an empty part or a control character in its key. "
            "Rename or delete it."
        )
    if _ROLE_SERVICE.search(text):
        prefix = OBJECT_SCHEMES[uri.partition("://")[0]]
        return StorageError(
            f"{uri}: there are no credentials. Set the {prefix}_… variables in the environment of "
            "the driver and of all workers, or give their machines a role."
        )
    if "redirect without LOCATION" in text:
        return StorageError(f"{uri}: the bucket is in another region. Set AWS_REGION.")
    if status in ("401", "403"):
        return StorageError(
            f"{uri}: the store denies access: {answer}. Check credentials and permissions."
        )
    if status == "501":
        return ConditionsUnsupportedError(f"{uri}: the store cannot do this: {answer}.")
    is_transient = (
        status.startswith("5")
        or status in _TRANSIENT_STATUSES
        or code in _TRANSIENT_CODES
        or (not status and "builder error" not in text)
    )
    if not is_transient:
        answer = answer or "the endpoint cannot be used"
        return StorageError(f"{uri}: the store refuses the request: {answer}. Check the settings.")
    return StorageError(
        f"{uri}: the store fails or does not answer: "
        f"{answer or _masked(text.rpartition(' - ')[2])}. Check it and the network, then run the "
        "same command again.",
        is_transient=True,
    )


def safe_text(error: Exception) -> str:
    """Return what a library's error says, without secrets and without its own structures."""
    return _masked(str(error).partition("\n\nDebug source:")[0])


def _masked(text: str) -> str:
    """Take the values of secret settings out of a text."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return redacted(text)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
