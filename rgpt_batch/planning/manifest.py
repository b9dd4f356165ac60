"""A planned job: its identity and its units, frozen before the first unit is scored."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from rgpt_batch.errors import ManifestMismatch
from rgpt_batch.input.columns import Columns
from rgpt_batch.planning.identity import Identity
from rgpt_batch.planning.old_plans import identity_from_lines
from rgpt_batch.records import WorkUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A planned job, as it is kept in the output folder.

    Attributes:
        fingerprint: The identity's.
        units: Those of the output's files, at least one; every input row is in exactly one.
        clustered: The units that are scored, where the output's are in another order; every input
            row is in exactly one of them, too.
    """

    fingerprint: str
    identity: Identity
    units: tuple[WorkUnit, ...]
    clustered: tuple[WorkUnit, ...] = ()

    @property
    def scored_units(self) -> tuple[WorkUnit, ...]:
        """The units that are scored."""
        return self.clustered or self.units

    @property
    def columns(self) -> Columns:
        """The columns of the shards that the units are read from."""
        return self.identity.columns

    @property
    def num_rows(self) -> int:
        """Input rows of the whole job."""
        return sum(unit.num_rows for unit in self.units)

    def to_json(self) -> bytes:
        """Serialise."""
        return _MANIFEST.dump_json(self)

    @classmethod
    def from_json(cls, text: bytes, path: str) -> Manifest:
        """Parse; raises ManifestMismatch where the file is no manifest that this version knows."""
        problem = (
            f"{path}: not a plan of this version of rgpt-batch. Use another output folder, or "
            "--on-change overwrite."
        )
        try:
            manifest = _parse(text)
        except ValueError as error:
            raise ManifestMismatch(problem) from error
        # Unit ids become file names: a plan that was tampered with must not name others.
        if not all(
            re.fullmatch(r"\d{6,}", unit.unit_id, re.ASCII)
            for unit in (*manifest.units, *manifest.clustered)
        ):
            raise ManifestMismatch(problem)
        return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class _FirstManifest:
    """What plans held up to version 0.1.0: the identity as lines of text."""

    fingerprint: str
    identity: dict[str, str]
    columns: Columns
    units: tuple[WorkUnit, ...]


_MANIFEST = TypeAdapter(Manifest)
_FIRST_MANIFEST = TypeAdapter(_FirstManifest)


def _parse(text: bytes) -> Manifest:
    try:
        return _MANIFEST.validate_json(text)
    except ValidationError:
        first = _FIRST_MANIFEST.validate_json(text)
        return Manifest(
            fingerprint=first.fingerprint,
            identity=identity_from_lines(first.identity, first.columns),
            units=first.units,
        )
