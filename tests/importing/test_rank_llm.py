"""Candidates in the JSON of RankGPT and rank_llm, in every shape that it is written in."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.errors import RgptBatchError, ShardError
from rgpt_batch.importing.import_pairs import import_pairs
from rgpt_batch.importing.readers.json_values import read_objects
from rgpt_batch.importing.sources.rank_llm import RankLlmSource
from tests.importing.files import read_rows

HITS = [
    {
        "query": "wie groß",
        "hits": [
            {"content": "Line\none. \u2028", "qid": 7, "docid": "d2", "rank": 1, "score": 9.5},
            {"content": 'A "quoted" ]}', "qid": 7, "docid": 3, "rank": 2, "score": 8},
        ],
    },
    {"query": "none", "hits": []},
    {"query": "b", "hits": [{"content": "", "qid": "q", "docid": "d2", "rank": 1, "score": -1.0}]},
]
CANDIDATES = [
    {
        "query": {"text": "wie groß", "qid": 7},
        "candidates": [
            {"docid": "d2", "score": 9.5, "doc": {"text": "Line\none. \u2028", "url": "x"}},
            {"docid": 3, "score": 8, "doc": {"contents": 'A "quoted" ]}', "title": ""}},
        ],
    },
    {"query": {"text": "none", "qid": 8}, "candidates": []},
    {
        "query": {"text": "b", "qid": "q"},
        "candidates": [{"docid": "d2", "score": -1.0, "doc": {"segment": ""}}],
    },
]
ROWS = [
    ("7", "wie groß", "d2", "Line\none. \u2028", 9.5, 1),
    ("7", "wie groß", "3", 'A "quoted" ]}', 8.0, 2),
    ("q", "b", "d2", "", -1.0, 1),
]
SHAPES: dict[str, Callable[[list[Any]], str]] = {
    "indented": lambda objects: json.dumps(objects, indent=2, ensure_ascii=False),
    "compact": lambda objects: json.dumps(objects, separators=(",", ":")),
    "lines": lambda objects: "".join(f"{json.dumps(o, ensure_ascii=False)}\r\n" for o in objects),
    "one after the other": lambda objects: " ".join(json.dumps(o, indent=1) for o in objects),
    "with a byte-order mark": lambda objects: "\ufeff " + json.dumps(objects) + "\n",
}


def _import(path: Path, output: Path) -> list[tuple[Any, ...]]:
    import_pairs(RankLlmSource(path=path), output)
    return [tuple(row.values()) for row in read_rows(output)]


@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("objects", [HITS, CANDIDATES], ids=["hits", "candidates"])
def test_both_layouts_give_the_same_pairs_in_every_shape(
    tmp_path: Path, objects: list[Any], shape: str, is_compressed: bool
) -> None:
    content = SHAPES[shape](objects).encode()
    path = tmp_path / "retrieved.json"
    path.write_bytes(gzip.compress(content) if is_compressed else content)
    assert _import(path, tmp_path / "pairs") == ROWS


def test_a_title_goes_before_its_text_and_a_missing_rank_is_the_place(tmp_path: Path) -> None:
    docs: list[Any] = [
        {"title": "T", "text": "x", "body": "not this"},
        {"title": None, "body": " y "},
        "plain",
    ]
    candidates = [{"docid": f"d{i}", "doc": doc} for i, doc in enumerate(docs)]
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"query": {"text": "q", "qid": 1}, "candidates": candidates}))
    assert _import(path, tmp_path / "pairs") == [
        ("1", "q", "d0", "T x", None, 1),
        ("1", "q", "d1", " y ", None, 2),
        ("1", "q", "d2", "plain", None, 3),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no pairs"),
        ("[]", "holds no pairs"),
        ('[{"query": "q", "hits": []}]', "holds no pairs"),
        ("3", r":1: expected a JSON object, found int"),
        ('[\n{"query": "q", "hits": []},\n7]', r":3: expected a JSON object, found int"),
        ('[\n{"query": "q" "hits": []}]', r":2: not JSON \(Expecting ',' delimiter\)"),
        ('[{"query": "q", "hits": []}', "cut off"),
        ('[{"query": "q", "hits": ["', r"not JSON \(Unterminated string"),
        ('[{"query": "q", "hits": []} {}]', "expected a comma or ], found '{'"),
        ('[{"query": "q", "hits": []}] x', "expected nothing after the array, found 'x'"),
        ('{"qid": "1", "pid": "2"}', r":1: expected an object with `query` .* found qid, pid"),
        ('{"query": "q", "hits": [3]}', "candidate 1 is of type int, expected a JSON object"),
        ('{"query": "q", "hits": [{"qid": 1, "docid": 2}]}', "candidate 1 has no text .* qid, doc"),
        ('{"query": "q", "hits": [{"docid": 2, "content": "x"}]}', ":1: query_id is None"),
        ('{"query": "q", "hits": [{"qid": 1, "content": "x"}]}', ":1: doc_id is None"),
        ('{"query": "q", "candidates": [{"docid": 1, "doc": 4}]}', "candidate 1 has no text"),
        (
            '{"query": "q", "hits": [{"qid": 1, "docid": 2, "content": "x", "score": "?"}]}',
            "first_stage_score is '\\?', expected a finite number",
        ),
        (
            '{"query": "q", "hits": [{"qid": 1, "docid": 2, "content": "x"}]}\n' * 2,
            "there more than once: .* in lines 1 and 2",
        ),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(RgptBatchError, match=said) as refused:
        _import(path, tmp_path / "pairs")
    assert str(refused.value).startswith(str(path))
    assert not (tmp_path / "pairs").exists()


def test_text_that_is_not_utf8_and_a_file_that_is_cut_off_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes('[{"query": "größe"}]'.encode("latin-1"))
    with pytest.raises(ShardError, match=r"not UTF-8 \(.* at byte 15\)"):
        list(read_objects(str(path)))
    path.write_bytes(gzip.compress(json.dumps(HITS).encode())[:-12])
    with pytest.raises(ShardError, match="reading failed"):
        list(read_objects(str(path)))


def test_objects_are_read_wherever_a_piece_of_the_file_ends(tmp_path: Path) -> None:
    # Objects of all lengths up to several pieces, with escapes, so that pieces end anywhere.
    objects = [{"n": i, "text": '\u00e9\n\\"' * (i * 9973 % 70_001)} for i in range(60)]
    objects.append({"n": -1, "text": "x" * 5_000_000})
    for shape in ("compact", "indented", "lines"):
        path = tmp_path / "objects.json"
        path.write_text(SHAPES[shape](objects), encoding="utf-8")
        found = list(read_objects(str(path)))
        assert [value for _, value in found] == objects
        lines = path.read_text(encoding="utf-8").split("\n")
        assert all(lines[number - 1].lstrip(" [,").startswith("{") for number, _ in found)


def test_a_long_file_on_one_line_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    one = json.dumps({"query": "q", "hits": [{"content": "x" * 10_000}]})
    path.write_text(f"[{','.join([one] * 6_000)}]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_objects(str(path))) == 6_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 6
