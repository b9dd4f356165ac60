"""The parts of vLLM that we use are found in the source of a wheel that nobody installs."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path

import numpy as np
import pytest
import vllm_versions
from vllm_source import VllmSource

from rgpt_batch.engines.vllm.hooks import Field, Hook, Method, OfInstance
from rgpt_batch.engines.vllm.parts import PARTS
from tests.conftest import ROOT

FILES = {
    "vllm/__init__.py": "",
    "vllm/plain.py": """
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from elsewhere import Foreign

class Base(Foreign):
    inherited = 1

    def look_up(self, request, limit=None): ...

class Manager(Base):
    def __init__(self, size, *, depth=1):
        self.cache: list = []
        self.size, self.depth = size, depth

    @property
    def length(self): ...

class Params(Struct, array_like=True):
    kind: ClassVar[int] = 3
    task: str
    ids: list[int] | None = None
    arrays: Annotated["np.ndarray", "rows"] | list[list[int]] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

def get(model, *args, revision=None, **kwargs): ...
""",
    "vllm/passed_on/__init__.py": "from .deep import *\nfrom ..plain import Params as Renamed\n",
    "vllm/passed_on/deep.py": "if True:\n    from vllm.plain import Manager\n",
}
PLAIN = "vllm.plain"


@pytest.fixture
def source(tmp_path: Path) -> VllmSource:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return VllmSource(tmp_path)


@pytest.mark.parametrize(
    "hook",
    [
        Hook(PLAIN, "Manager", ("inherited", "length", Method("look_up", ("request",)))),
        Hook(PLAIN, "Manager", (OfInstance("cache"), OfInstance("size"), OfInstance("depth"))),
        Hook(PLAIN, "Manager", keywords=("size", "depth")),
        Hook(PLAIN, "Manager", keywords=("size",)),
        Hook(PLAIN, "Params", ("task", "kind", Field("arrays", np.ndarray), Field("ids", list))),
        Hook(PLAIN, "Params", keywords=("task", "extra")),
        Hook(PLAIN, "get", keywords=("model", "revision", "anything")),
        Hook("vllm.passed_on", "Manager", ("inherited",)),
        Hook("vllm.passed_on", "Renamed", ("task",)),
    ],
)
def test_parts_that_are_there_are_found(source: VllmSource, hook: Hook) -> None:
    assert source.missing([hook]) == []


@pytest.mark.parametrize(
    ("hook", "named"),
    [
        (Hook(PLAIN, "Nobody"), "Nobody"),
        (Hook("vllm.nowhere", "Manager"), "Manager"),
        (Hook("vllm.passed_on", "Base"), "Base"),
        (Hook(PLAIN, "Manager", ("cache",)), "Manager.cache"),
        (Hook(PLAIN, "Manager", (OfInstance("inherited"),)), "Manager.inherited"),
        (
            Hook(PLAIN, "Manager", (Method("look_up", ("hashes", "request")),)),
            "Manager.look_up(hashes, request)",
        ),
        (Hook(PLAIN, "Manager", keywords=("depth",)), "Manager(depth)"),
        (Hook(PLAIN, "Manager", keywords=("size", "width")), "Manager(size, width)"),
        (Hook(PLAIN, "Params", (Field("ids", np.ndarray),)), "Params.ids of type ndarray"),
        (Hook(PLAIN, "Params", keywords=("extra",)), "Params(extra)"),
        (Hook(PLAIN, "Params", keywords=("task", "kind")), "Params(task, kind)"),
        (Hook(PLAIN, "get", keywords=("revision",)), "get(revision)"),
    ],
)
def test_parts_that_are_missing_or_others_are_named(
    source: VllmSource, hook: Hook, named: str
) -> None:
    assert source.missing([hook]) == [f"{hook.module}.{named}"]


def test_a_wheel_is_read_without_being_installed_and_stands_in_the_table(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm-0.99.0-cp38-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
        metadata = "Name: vllm\nRequires-Dist: torch==9.9.0\nRequires-Dist: torchvision\n"
        archive.writestr("vllm-0.99.0.dist-info/METADATA", metadata)
    version, found = vllm_versions.read_wheel(wheel)
    assert version == "0.99.0"
    assert found["requires"] == {"torch": "==9.9.0", "transformers": "any"}
    assert found["lacks"].keys() == PARTS.keys()
    assert "vllm.v1.engine.EngineCoreOutput" in found["lacks"]["query-rows"]
    page = vllm_versions.table({version: found})
    assert "| 0.99.0 | ==9.9.0 | no |" in page
    assert "- query-rows: `vllm.v1.engine.EngineCoreOutput` (0.99.0)" in page


def test_what_tests_said_is_noted(tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    results.write_text(
        '<testsuites><testsuite><testcase classname="t" name="a"/><testcase classname="t" name="b">'
        '<failure/></testcase><testcase classname="t" name="c"><skipped/></testcase></testsuite>'
        "</testsuites>"
    )
    ran = vllm_versions.note_run("0.99.0", results)
    assert (ran["num_passed"], ran["num_skipped"], ran["failed"]) == (1, 1, ["t.b"])
    assert "1 passed, 1 failed, 1 skipped" in vllm_versions.table({"0.99.0": {"ran": ran}})


def test_the_table_is_written_from_the_findings_and_these_cover_all_that_we_use() -> None:
    findings = vllm_versions.load()
    assert vllm_versions.TABLE.read_text() == vllm_versions.table(findings)
    assert findings
    for version, found in findings.items():
        assert found["lacks"].keys() == PARTS.keys(), f"read {version} again"


def test_no_part_that_an_engine_looks_up_is_left_out_of_the_list() -> None:
    sources = (ROOT / "rgpt_batch" / "engines" / "vllm").rglob("*.py")
    calls = [
        node
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Hook"
    ]
    assert len(calls) == len({hook for hooks in PARTS.values() for hook in hooks})
