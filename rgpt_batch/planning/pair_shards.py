"""What a job reads, and the simplest kind of it: Parquet files that hold ids and texts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.inspect import Shard, inspect_shards
from rgpt_batch.planning.identity import InputFacts, InputFile, PairFiles

Report = Callable[[str], None]


class JobInput(Protocol):
    """The input of a job.

    Attributes:
        arguments: The files, folders and patterns that the user named.
        paths: The files that these mean.
    """

    arguments: Sequence[str]
    paths: Sequence[str]

    @property
    def columns(self) -> Columns:
        """The columns of the shards."""
        ...

    def facts(self) -> InputFacts:
        """Say what the input consists of; the job's identity covers it.

        Raises:
            ShardError: A file cannot be used.
        """
        ...

    def shards(self, fingerprint: str, output: str, report: Report) -> Sequence[Shard]:
        """Return the shards to cut into units; at least one.

        Args:
            fingerprint: The job's.
            output: The job's output folder, where shards that have to be made are kept.
            report: Is called with a line of text before work that takes long.

        Raises:
            ConfigError, ShardError: The input cannot be used.
        """
        ...


class PairShards:
    """Shards of pairs; see JobInput.

    Args:
        config: The job's.
        arguments: What the user named.
        paths: The files that it stands for.
    """

    def __init__(self, config: JobConfig, arguments: Sequence[str], paths: Sequence[str]) -> None:
        self.arguments = arguments
        self.paths = paths
        self._config = config

    @property
    def columns(self) -> Columns:
        """The columns; all shards have the same."""
        return self._shards[0].columns

    def facts(self) -> PairFiles:
        """Say which files, in which versions."""
        return PairFiles(
            files=tuple(
                InputFile(
                    path=shard.path, version=shard.version, num_row_groups=len(shard.row_groups)
                )
                for shard in self._shards
            )
        )

    def shards(self, fingerprint: str, output: str, report: Report) -> Sequence[Shard]:
        """Return the shards as they are."""
        return self._shards

    @functools.cached_property
    def _shards(self) -> Sequence[Shard]:
        return inspect_shards(self.paths, self._config.input, self._config.output.pass_through)
