"""Is every row of the input there once, where rows were clustered? They say where they are from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rgpt_batch.input.pairs import SOURCE_FILE, SOURCE_ROW
from rgpt_batch.output.store import CommittedFile
from rgpt_batch.planning.identity import PairFiles
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.storage.files import open_source


def check_sources(files: Mapping[str, CommittedFile], manifest: Manifest) -> Iterator[str]:
    """Say which input files are not there row by row; nothing where rows were read in place.

    Args:
        files: All files of the output, each of them intact.
        manifest: The job's.
    """
    facts = manifest.identity.input
    if not isinstance(facts, PairFiles) or (facts.order != "document" and facts.only is None):
        return
    found: dict[str, list[npt.NDArray[np.int64]]] = {path: [] for path in facts.paths}
    for file in files.values():
        table = pq.read_table(open_source(file.path), columns=[SOURCE_FILE, SOURCE_ROW])
        sources = table[SOURCE_FILE].cast(pa.string())
        for path in pc.unique(sources).to_pylist():
            rows = table[SOURCE_ROW].filter(pc.equal(sources, path))
            found.setdefault(path, []).append(rows.to_numpy())
    for path, parts in found.items():
        rows = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
        # Where some are chosen, nobody knows which without choosing again.
        expected = np.arange(len(rows)) if facts.only is None else np.unique(rows)
        if not np.array_equal(rows, expected):
            yield f"{path}: its rows are not there once each. Run the job in another folder."
