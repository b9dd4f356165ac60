"""What a job has to do: its identity, and its input cut into units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rgpt_batch.config.options import JobConfig, ModelConfig
from rgpt_batch.errors import ConfigError, ManifestMismatch
from rgpt_batch.importing.arranged import ArrangedPairs
from rgpt_batch.importing.joined import JoinedTables, TextTables
from rgpt_batch.input.find import resolve_inputs
from rgpt_batch.job.order import arranged
from rgpt_batch.output import Store
from rgpt_batch.output.score_file import check_pass_through
from rgpt_batch.output.scored_files import find_files
from rgpt_batch.planning.identity import Identity, InputFacts, PairFiles, job_identity
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.planning.pair_shards import JobInput, PairShards, Report
from rgpt_batch.planning.same_job import differences, is_same_job, with_full_paths
from rgpt_batch.planning.units import plan_units
from rgpt_batch.ranking.top import TopPairs
from rgpt_batch.records import WorkUnit
from rgpt_batch.scoring.model_files import check_tokenizer, check_weights, pinned
from rgpt_batch.storage.files import local_path
from rgpt_batch.storage.find import would_find
from rgpt_batch.storage.uris import is_inside, resolved, those_inside

OnChange = Literal["refuse", "overwrite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to score, with what, and how the result is told from that of other jobs.

    Attributes:
        config: With the model pinned to a commit.
    """

    config: JobConfig
    source: JobInput
    identity: Identity

    def cut(self, output: str, report: Report) -> Manifest:
        """Cut the input into units; see JobInput.shards."""
        fingerprint = self.identity.fingerprint
        shards = self.source.shards(fingerprint, output, report)
        units = tuple(plan_units(shards, self.config.units))
        clustered: tuple[WorkUnit, ...] = ()
        if isinstance(self.source, ArrangedPairs) and self.source.order == "restored":
            given = self.source.pairs.shards(fingerprint, output, report)
            units, clustered = tuple(plan_units(given, self.config.units)), units
        return Manifest(
            fingerprint=fingerprint, identity=self.identity, units=units, clustered=clustered
        )

    def sketch(self, output: str, report: Report) -> Manifest:
        """As cut, but leave the order of rows: for a plan that is not to be carried out."""
        source = self.source
        if isinstance(source, ArrangedPairs) and source.only is None:
            source = source.pairs
        return replace(self, source=source).cut(output, report)


def open_input(
    config: JobConfig,
    inputs: Sequence[str],
    texts: TextTables | None,
    only: TopPairs | None = None,
) -> JobInput:
    """Find the input that a command's arguments mean.

    Args:
        config: The job's.
        inputs: Files, folders or glob patterns. With texts, the one table of candidates.
        texts: Where the texts are, if the input has ids alone.
        only: Pairs that alone are wanted, of tables; see job.order for other input.

    Raises:
        ConfigError: An argument names nothing, or two do not go together.
        ShardError: A table cannot be used.
    """
    if texts is None:
        return PairShards(config, inputs, find_files(inputs))
    if len(inputs) != 1:
        raise ConfigError(
            f"--input is given {len(inputs)} times; with --queries or --documents it names the one "
            "table of candidates: a Parquet file, a folder or a pattern."
        )
    return JoinedTables(config, inputs[0], texts, only)


def check_places(output: str, *, tables: TextTables | None, reuse: str | None) -> None:
    """Refuse an output or an earlier one where it cannot be.

    Raises:
        ConfigError: It is in an object store, and what was asked for needs a file system.
    """
    if not local_path(output) and (reuse is not None or tables is not None):
        raise ConfigError(
            f"{output}: --reuse and tables of texts need an output folder on a file system, since "
            "sorted scores and joined pairs are kept there. Leave them out, or use a folder."
        )
    if reuse is not None and not local_path(reuse):
        raise ConfigError(f"{reuse}: --reuse reads folders on a file system. Copy it to one.")


def reopen_input(config: JobConfig, facts: InputFacts) -> JobInput:
    """Find the input of a job that was planned before; errors as open_input."""
    only = None if facts.only is None else TopPairs(facts.only.ranking, facts.only.top_k)
    if isinstance(facts, PairFiles):
        pairs = PairShards(config, facts.paths, resolve_inputs(facts.paths))
        return arranged(config, pairs, facts.order, only)
    return JoinedTables(
        config,
        facts.candidates.paths,
        TextTables(
            queries=facts.queries.paths if facts.queries else None,
            documents=facts.documents.paths if facts.documents else None,
        ),
        only,
    )


def identify(config: JobConfig, source: JobInput, output: str) -> Job:
    """Find out what identifies a job, without writing anything.

    Raises:
        ConfigError: Input, output or configuration is wrong.
        ShardError: An input file cannot be used.
    """
    check_pass_through(config.output.pass_through, labels=not config.score.is_likelihood)
    _check_apart(source, resolved(output))
    facts = with_full_paths(source.facts())
    config = config.with_options({"model": _checked(config)})
    identity = job_identity(config, source.columns, facts)
    return Job(config=config, source=source, identity=identity)


def plan_job(config: JobConfig, inputs: Sequence[str], output: str) -> tuple[JobConfig, Manifest]:
    """Find out what a job on pairs with texts, in input order, has to do; write nothing.

    Returns:
        The configuration with the model pinned to a commit, and the plan.

    Raises:
        ConfigError, ShardError: See identify.
    """
    job = identify(config, open_input(config, inputs, None), output)
    return job.config, job.cut(output, lambda message: None)


def freeze(store: Store, job: Job, on_change: OnChange, report: Report) -> Manifest:
    """Return the plan that is in force in the output folder; make one where there is none.

    Raises:
        ManifestMismatch: It is another job's, and on_change is refuse.
        ConfigError, ShardError: The input cannot be cut into units.
        CommitError: The plan cannot be written.
    """
    found = _find_plan(store, job, on_change)
    if found is not None:
        return found
    planned = job.cut(store.location, report)
    store.save_manifest(planned)
    # Another run of the same command may have been faster.
    return store.load_manifest() or planned


def _find_plan(store: Store, job: Job, on_change: OnChange) -> Manifest | None:
    try:
        found = store.load_manifest()
        if found is not None and not is_same_job(found.identity, job.identity):
            raise ManifestMismatch(
                f"{store.location}: holds the scores of another job:\n"
                f"{differences(found.identity, job.identity)}\n"
                "Use another output folder, or --on-change overwrite to delete them."
            )
    except ManifestMismatch:
        if on_change == "refuse" or not store.has_manifest():
            raise
        store.clear()
        return None
    return found


def _checked(config: JobConfig) -> ModelConfig:
    """Pin the model; say now, not on a worker, if its tokenizer or weights cannot be used."""
    model = pinned(config.model)
    if config.reads_weights:
        check_weights(model)
    # Code of the repository's own may read any format; load_tokenizer finds out.
    if not model.trust_remote_code:
        check_tokenizer(*model.tokenizer_source)
    return model


def _check_apart(source: JobInput, target: str) -> None:
    """Raise ConfigError where input and output are in each other's way."""
    if inside := those_inside(source.paths, target):
        raise ConfigError(f"{inside[0]}: an input file lies in the output folder {target}.")
    # A resumed job would find its own output among its input.
    folders = [resolved(name) for name in source.arguments]
    if around := [folder for folder in folders if is_inside(target, folder)]:
        raise ConfigError(f"{target}: the output folder lies in the input folder {around[0]}.")
    part = f"{target}/part-000000.parquet"
    if around := [name for name in source.arguments if would_find(name, part)]:
        raise ConfigError(f"{target}: the output folder lies where {around[0]} finds its files.")
