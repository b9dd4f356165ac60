"""Connections to object stores, set up from the environment."""

from __future__ import annotations

import functools
import os
from typing import Any

from rgpt_batch.errors import ConfigError
from rgpt_batch.storage.object_errors import safe_text
from rgpt_batch.storage.uris import OBJECT_SCHEMES, is_uri, split_uri

# The pauses between so many attempts come to some 25 s: a store that throttles recovers in seconds,
# one that is down is a matter of the job's next run.
_MAX_ATTEMPTS = 10
# The client reads its settings from the environment by their names (S3Config, GCSConfig and
# AzureConfig of obstore 0.12 list them). These are the ones that are URLs; it panics where one of
# them is not. Others with ENDPOINT in their name, such as AWS_STS_REGIONAL_ENDPOINTS, are none.
_URL_SETTINGS = {
    "AWS": (
        "AWS_ENDPOINT",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_STS_ENDPOINT",
        "AWS_METADATA_ENDPOINT",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
    "GOOGLE": ("GOOGLE_BASE_URL",),
    "AZURE": (
        "AZURE_ENDPOINT",
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_AUTHORITY_HOST",
        "AZURE_STORAGE_AUTHORITY_HOST",
        "AZURE_MSI_ENDPOINT",
        "AZURE_IDENTITY_ENDPOINT",
        "AZURE_FABRIC_TOKEN_SERVICE_URL",
    ),
}


def connect(uri: str) -> tuple[Any, str]:
    """Return the client of a bucket, and the key in it.

    Raises:
        ConfigError: The URI or a setting cannot be used.
    """
    root, key = split_uri(uri)
    return _bucket(root), key


def settings_present() -> list[str]:
    """Name what the environment sets for object stores; values are not looked at."""
    prefixes = tuple(f"{prefix}_" for prefix in sorted(set(OBJECT_SCHEMES.values())))
    return sorted(name for name in os.environ if name.startswith(prefixes))


def max_attempts(prefix: str) -> int:
    """Return how often a request is tried; errors as connect."""
    name = f"{prefix}_MAX_ATTEMPTS"
    try:
        return int(os.environ.get(name, _MAX_ATTEMPTS))
    except ValueError:
        raise ConfigError(f"{name}={os.environ[name]}: expected a whole number.") from None


def client_settings(uri: str) -> dict[str, str]:
    """Return what a client of an object store is told beside the environment; {} for a local path.

    Raises:
        ConfigError: A setting cannot be used, or it is no URI of an object store.
    """
    if not is_uri(uri):
        return {}
    scheme = split_uri(uri)[0].partition("://")[0]
    if scheme not in OBJECT_SCHEMES:
        raise ConfigError(f"{uri}: {scheme}:// can be read only. Name another place.")
    prefix = OBJECT_SCHEMES[scheme]
    urls = {name: os.environ[name] for name in _URL_SETTINGS[prefix] if name in os.environ}
    for name, url in urls.items():
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{name}: expected http://… or https://…. Correct it, or unset it.")
    allows_http = any(url.startswith("http://") for url in urls.values())
    return {
        "allow_http": str(allows_http).lower(),
        "timeout": os.environ.get(f"{prefix}_TIMEOUT", "30s"),
    }


@functools.lru_cache
def _bucket(root: str) -> Any:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    prefix = OBJECT_SCHEMES[root.partition("://")[0]]
    client: Any = client_settings(root)
    try:
        # Retries are ours: they have to read a lost answer right, and hold for every failure.
        return from_url(root, client_options=client, retry_config={"max_retries": 0})
    except (BaseError, ValueError) as error:
        failure = ConfigError(f"{root}: a setting {prefix}_… cannot be used: {safe_text(error)}")
    raise failure
