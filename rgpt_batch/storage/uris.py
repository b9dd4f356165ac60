"""Locations that are not local paths: which ones are known, and what must not stand in them.

s3://bucket/key    gs://bucket/key    az://container/key    abfs[s]://container[@account…]/key
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rgpt_batch.config.arguments import folded
from rgpt_batch.errors import ConfigError

# Scheme → prefix of the environment variables that its settings are read from.
OBJECT_SCHEMES = {
    "s3": "AWS",
    "s3a": "AWS",
    "gs": "GOOGLE",
    "az": "AZURE",
    "abfs": "AZURE",
    "abfss": "AZURE",
}
HUB_SCHEME = "hf"

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)/?(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Secret keys may hold slashes.
_USER_INFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]+://)[^/\s@'\"]*:[^\s'\"]*@")
_QUERY = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]+://[^\s?'\"]*)\?[\w.%-]+=[^\s'\"]*")


def is_uri(location: str) -> bool:
    """Tell `scheme://…` from a local path."""
    return _URI.fullmatch(location) is not None


def split_uri(uri: str) -> tuple[str, str]:
    """Split into `scheme://bucket` and the key, without slashes at the key's ends.

    Raises:
        ConfigError: The scheme is unknown, there is no bucket, a key cannot be used, or the URI
            holds credentials; the message does not repeat those.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise ConfigError(f"{redacted(uri)}: not a URI.")
    scheme, bucket, key = match.groups()
    if bucket.startswith("arn:"):
        raise ConfigError(
            f"{uri}: an ARN is no bucket. An access point is named by its alias, which ends in "
            f"-s3alias: {scheme}://ALIAS/key."
        )
    has_user = "@" in bucket and OBJECT_SCHEMES.get(scheme) != "AZURE"
    if redacted(uri) != uri or has_user or ":" in bucket:
        raise ConfigError(
            f"{scheme}://***: the URI holds credentials or parameters, which would be recorded. "
            f"Take them out; environment variables {OBJECT_SCHEMES.get(scheme, 'HF')}_… set them."
        )
    if scheme not in (*OBJECT_SCHEMES, HUB_SCHEME):
        known = ", ".join(f"{name}://" for name in (*OBJECT_SCHEMES, HUB_SCHEME))
        raise ConfigError(f"{uri}: unknown scheme. Known: {known}, and local paths.")
    if not bucket:
        raise ConfigError(f"{uri}: names no bucket. Expected {scheme}://bucket/key.")
    key = key.rstrip("/")
    if any(part in ("", ".", "..") for part in key.split("/")) and key:
        raise ConfigError(f"{uri}: a part of the key is empty, '.' or '..'. Rename the object.")
    if _CONTROL.search(uri):
        raise ConfigError(f"{uri!a}: the key holds a control character. Rename the object.")
    return f"{scheme}://{bucket}", key


def check_location(location: str) -> None:
    """Raise ConfigError where a location is a URI that cannot be used; see split_uri."""
    if is_uri(location):
        split_uri(location)


def resolved(location: str) -> str:
    """Return a path in full, with all links followed, or a URI as it is.

    Raises:
        ConfigError: The URI cannot be used.
    """
    check_location(location)
    return location if is_uri(location) else os.path.realpath(location)


def redacted(text: str) -> str:
    """Mask what may be credentials in the URIs of a text."""
    return _QUERY.sub(r"\1?***", _USER_INFO.sub(r"\1***@", text))


def identity(location: str) -> str:
    """Return what is the same for all names of a file or folder; see identities."""
    return identities([location])[0]


def identities(locations: Iterable[str]) -> list[str]:
    """Return what is the same for all names of a file or folder: for links, s3:// and s3a://.

    Raises:
        ConfigError: A URI cannot be used.
    """
    # Many files lie in few folders, and a folder's links are followed once.
    folders: dict[str, str] = {}
    return [
        _identity_of_uri(location) if is_uri(location) else _followed(location, folders)
        for location in locations
    ]


def _followed(path: str, folders: dict[str, str]) -> str:
    """Return a path in full, with all links followed.

    Args:
        path: Of a file or folder.
        folders: Where the links of folders led to; gets those of the path's.
    """
    folder, name = os.path.split(path)
    if name in ("", os.curdir, os.pardir) or os.path.islink(path):
        return os.path.realpath(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)


def full_paths(files: Sequence[str]) -> list[str]:
    """Return files' absolute paths without `.` and `..`; links stay.

    Only where a `..` follows a link, links are followed: taken as text, it would lead elsewhere.

    Args:
        files: Local.
    """
    parts = [os.path.split(file) for file in files]
    folders = {folder: _full_folder(folder) for folder in {folder for folder, _ in parts}}
    return [os.path.join(folders[folder], name) for folder, name in parts]


def _full_folder(folder: str) -> str:
    full = absolute(folder)
    return os.path.realpath(folder) if os.pardir in full.split(os.sep) else full


def absolute(path: str) -> str:
    """Return a local path or pattern in full, without `.`, and without `..` but after a link."""
    return folded(path if os.path.isabs(path) else os.path.join(os.getcwd(), path))


def _identity_of_uri(uri: str) -> str:
    root, key = split_uri(uri)
    scheme, _, bucket = root.partition("://")
    family = OBJECT_SCHEMES.get(scheme, scheme)
    if family == "AZURE":
        bucket, _, host = bucket.partition("@")
        account = host.partition(".")[0] or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        bucket = f"{bucket}@{account}"
    return f"{family}://{bucket}/{key}".rstrip("/")


def is_inside(location: str, folder: str) -> bool:
    """Whether a file or folder lies below a folder, both local or both URIs."""
    return bool(those_inside([location], folder))


def those_inside(locations: Sequence[str], folder: str) -> list[str]:
    """Return the files and folders that lie below a folder, all of them local or URIs."""
    above = f"{identity(folder).rstrip('/')}/"
    places = zip(locations, identities(locations), strict=True)
    return [each for each, place in places if place.startswith(above) and place != above]


def redacted_values(value: Any) -> Any:
    """Mask credentials in all texts of a record: causes repeat what libraries say."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: redacted_values(inner) for key, inner in value.items()}
    return [redacted_values(i) for i in value] if isinstance(value, list | tuple) else value
