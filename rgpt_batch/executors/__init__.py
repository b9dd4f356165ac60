"""Where units run, by the name in `executor.kind`."""

from rgpt_batch.config.options import JobConfig
from rgpt_batch.executors.base import Executor

__all__ = ["Executor", "create_executor"]


def create_executor(config: JobConfig) -> Executor:
    """Build the configured executor; nothing runs yet."""
    if config.executor.kind == "local":
        from rgpt_batch.executors.local import LocalExecutor

        return LocalExecutor(config.executor)
    from rgpt_batch.executors.ray_executor import RayExecutor

    return RayExecutor(config)
