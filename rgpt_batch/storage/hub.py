"""Files of Hugging Face repositories, to read: hf://datasets/<owner>/<name>[@<revision>]/<path>.

They are named by the commit that the revision means when a job is planned, so that it reads the
same bytes from beginning to end. HF_TOKEN and HF_ENDPOINT apply.
"""

from __future__ import annotations

from typing import Any

from rgpt_batch.errors import ConfigError, StorageError
from rgpt_batch.storage.range_file import RangeFile
from rgpt_batch.storage.uris import HUB_SCHEME


def list_repository(uri: str) -> tuple[str, str, list[str]]:
    """Find out which commit a URI means, and which files its repository has there.

    Returns:
        The URI of the repository at that commit, the path in it, and the URIs of all its files.

    Raises:
        ConfigError: The URI names no repository.
        OSError: The hub cannot be reached, or has no such repository or revision.
    """
    from huggingface_hub import HfApi

    try:
        found: Any = _file_system().resolve_path(uri)
        name, kind = found.repo_id, found.repo_type
    except (ValueError, NotImplementedError, AttributeError) as error:
        raise ConfigError(
            f"{uri}: not a repository. Expected {HUB_SCHEME}://datasets/<owner>/<name>/<path>."
        ) from error
    info = HfApi().repo_info(name, repo_type=kind, revision=found.revision)
    root = uri.removesuffix("/").removesuffix(found.path_in_repo).rstrip("/").partition("@")[0]
    root = f"{root}@{info.sha}"
    names = HfApi().list_repo_files(name, repo_type=kind, revision=info.sha)
    return root, found.path_in_repo.rstrip("/"), [f"{root}/{name}" for name in names]


def open_version(uri: str) -> tuple[str, RangeFile]:
    """Return a file's version and the file; the URI holds a commit, so its size says enough.

    Raises:
        OSError: The file cannot be read.
    """
    file: Any = _file_system().open(uri, "rb")

    def read_range(start: int, end: int) -> bytes:
        try:
            file.seek(start)
            content: bytes = file.read(end - start)
        except Exception as error:
            # Of another kind, it could be taken for damage of the content.
            raise StorageError(
                f"{uri}: the hub fails or does not answer: {type(error).__name__}. Check the "
                "network and HF_TOKEN, then run the same command again.",
                is_transient=True,
            ) from error
        return content

    return str(file.size), RangeFile(file.size, read_range)


def _file_system() -> Any:
    from huggingface_hub import HfFileSystem

    return HfFileSystem()


def hub_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what the hub's library raises where the hub refuses or cannot be reached, and more.

    A network that is down ends in an error of the HTTP library below it. Which library that is
    differs between versions; the hub's own errors are among its errors in each.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (*more, *HfHubHTTPError.__bases__, OSError)
