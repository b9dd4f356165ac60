"""Where units run, by the name in `executor.kind`."""

from rgpt_batch.config.options import JobConfig
from rgpt_batch.executors.base import Executor
from rgpt_batch.executors.process_log import RunLogs
from rgpt_batch.output.begun import Begun

__all__ = ["Executor", "create_executor"]


def create_executor(
    config: JobConfig, logs: RunLogs | None = None, begun: Begun | None = None
) -> Executor:
    """Build the configured executor; nothing runs yet.

    Args:
        config: The job's.
        logs: Where processes that it starts write what they print; default: where Ray puts it.
        begun: Where the local executor notes what it begins; it dies with the engine.
    """
    if config.executor.kind == "local":
        from rgpt_batch.executors.local import LocalExecutor

        return LocalExecutor(config.executor, begun)
    from rgpt_batch.executors.ray_executor import RayExecutor

    return RayExecutor(config, logs)
