"""The exception tree. Each class says who has to act and whether a retry can help.

RgptBatchError
├── ConfigError             the caller: fix the configuration or the command line; no retry
│   └── ParityError         the caller: the engine is not fit for the model; change one of them
├── ShardError              the owner of the input: a file cannot be used; retry after a repair
├── ManifestMismatch        the caller: the output folder belongs to a different job; no retry
├── EngineError             the operator: the engine failed
│   ├── EngineStartError    the engine did not start; no retry until its cause is gone
│   ├── EngineOutputError   the engine answered something that is not a score; one retry may help
│   └── EngineDead          the engine process is gone; retry on a new worker
├── CommitError             the operator: a result could not be published; retry is safe
│   └── CommitStateUnknown  the store did not say whether the commit happened; list it, then decide
├── StorageError            the operator: a store or a disk refuses or fails; retry when it is back
└── Interrupted             nobody: a signal stopped the job; the same command resumes it
"""

from __future__ import annotations


class RgptBatchError(Exception):
    """Base of every error that this package raises on purpose.

    The message says what went wrong, where, and how to fix it.
    """


class ConfigError(RgptBatchError):
    """The configuration or the command line is wrong."""


class ParityError(ConfigError):
    """The configured engine disagrees with the float32 reference; nothing was scored."""


class ShardError(RgptBatchError):
    """An input file is missing, unreadable, changed since planning, or has the wrong columns."""


class ManifestMismatch(RgptBatchError):
    """The output folder holds the work of a job with another fingerprint."""


class EngineError(RgptBatchError):
    """An engine failed."""


class EngineStartError(EngineError):
    """An engine could not be started."""


class EngineOutputError(EngineError):
    """An engine returned values that cannot be query-token log-probabilities."""


class EngineDead(EngineError):
    """An engine died while it was scoring."""


class CommitError(RgptBatchError):
    """A scored unit could not be published."""


class CommitStateUnknown(CommitError):
    """It is unknown whether a commit happened. Committing the same unit again is safe."""


class StorageError(RgptBatchError):
    """An object store or a disk refused a request, or gave no answer.

    Attributes:
        is_transient: Whether the same request may succeed later. If it was a write, it may have
            been carried out.
    """

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


class Interrupted(RgptBatchError):
    """A signal stopped the job.

    Attributes:
        signum: The signal's number, so that the exit code can be 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum
