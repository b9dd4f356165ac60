"""Candidates with their texts as RankGPT and rank_llm keep them: JSON, one object per query.

    {"query": "…", "hits": [{"qid": 1, "docid": "d", "content": "…", "rank": 1, "score": 9.5}]}
    {"query": {"text": "…", "qid": 1}, "candidates": [{"docid": "d", "score": 9.5, "doc": {…}}]}

The objects stand in an array, indented or not, or one on each line. Candidates are in the order of
the first stage; where they have no `rank` it is their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.errors import ShardError
from rgpt_batch.importing.readers.json_values import read_objects
from rgpt_batch.importing.readers.relations import RANK, SCORE, Relations
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.text import spool_rows

# In the order of rank_llm itself: the first one that a document has is its text.
_TEXTS = ("text", "segment", "contents", "content", "body", "passage")
_COLUMNS = {
    "query_id": "qid",
    "doc_id": "docid",
    "query": "query",
    "document": "content",
    SCORE: "score",
    RANK: "rank",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLlmSource:
    """A file of queries with their candidates."""

    path: Location

    def open(self, spool: Spool) -> Relations:
        """Read the file.

        Raises:
            ShardError: It is unreadable, or an object is not what it should be.
        """
        path = as_location(self.path, "candidates")
        rows = (
            (line, row)
            for line, request in read_objects(path)
            for row in _rows(request, f"{path}:{line}")
        )
        candidates = spool_rows(path, _COLUMNS, rows, spool)
        return Relations(candidates=candidates, queries=None, documents=None)


def _rows(request: Mapping[str, Any], where: str) -> Iterator[Sequence[Any]]:
    query = request.get("query")
    candidates = request.get("hits", request.get("candidates"))
    if query is None or not isinstance(candidates, list):
        raise ShardError(
            f"{where}: expected an object with `query` and a list of `hits` or `candidates`, found "
            f"{', '.join(request) or 'an empty one'}. For pairs in other layouts there is "
            "`import pairs`."
        )
    for place, candidate in enumerate(candidates, 1):
        if not isinstance(candidate, dict):
            raise ShardError(
                f"{where}: candidate {place} is of type {type(candidate).__name__}, expected a "
                "JSON object. Correct it."
            )
        if isinstance(query, dict):
            query_id, query_text = query.get("qid"), query.get("text")
        else:
            query_id, query_text = candidate.get("qid"), query
        yield (
            query_id,
            candidate.get("docid"),
            query_text,
            _document(candidate, f"{where}: candidate {place}"),
            candidate.get("score"),
            candidate.get("rank", place),
        )


def _document(candidate: Mapping[str, Any], where: str) -> Any:
    """Return a document's text, with its title before it where it has one."""
    document = candidate.get("doc", candidate)
    if isinstance(document, str):
        return document
    known = document if isinstance(document, dict) else {}
    name = next((name for name in _TEXTS if name in known), None)
    if name is None:
        raise ShardError(
            f"{where} has no text ({', '.join(_TEXTS)}). It has: {', '.join(known) or 'nothing'}. "
            "Write the texts into the file, or join ids with a corpus: `import trec`."
        )
    text, title = known[name], known.get("title")
    if isinstance(text, str) and isinstance(title, str) and title:
        return f"{title} {text}".strip()
    return text
