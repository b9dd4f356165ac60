from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import Scored
from tests.report.jobs import resumed_job


@pytest.fixture(scope="session")
def job(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """A complete output of two runs; tests must leave its rows alone."""
    return resumed_job(tiny_tokenizer, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def qrels(job: Scored) -> Path:
    """Judgements of all five queries: every third document is relevant."""
    path = job.folder.parent / "qrels.tsv"
    path.write_text("".join(f"q{i % 5} 0 d{i} {int(i % 3 == 0)}\n" for i in range(60)))
    return path


@pytest.fixture(scope="session")
def bm25(job: Scored) -> Path:
    """The first stage's order as a TREC run."""
    from rgpt_batch.ranking.rank import rank

    path = job.folder.parent / "bm25.trec"
    rank([str(job.folder)], str(path), top_k=100, run_format="trec", score_column="bm25")
    return path
