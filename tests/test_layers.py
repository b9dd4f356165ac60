"""Who may import whom: docs in design, enforced here by reading the imports."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rgpt_batch"

# From low to high. A module imports from its own room and from rooms further down; rooms of one
# line do not know each other. A room is a package, or a module at the top of the package.
LAYERS = (
    ("records", "errors", "formatting"),
    ("config",),
    ("database",),
    ("storage",),
    ("input",),
    ("conversion",),
    ("scoring",),
    ("planning",),
    ("engines", "output"),
    ("reuse", "importing", "publishing"),
    ("ranking",),
    ("executors",),
    ("checks",),
    ("job",),
    ("report", "bench"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}
MAX_LINES = 300

# Who may import a heavy package, at any depth of the module.
CONFINED = {
    "ray": tuple(f"executors/ray_{n}.py" for n in ("connection", "executor", "metrics", "slot")),
    "vllm": ("engines/vllm/",),
    "torch": ("engines/", "bench/", "conversion/"),
    "transformers": ("engines/", "bench/", "scoring/tokenizer.py"),
    "deltalake": ("publishing/delta.py",),
    "pyiceberg": ("publishing/iceberg.py",),
}

MODULES = sorted(PACKAGE.rglob("*.py"))
# Everybody else asks storage.files, and finds and opens the same way wherever a file is. Here an
# output folder is opened as the store that it is in, and an option says whether it takes URIs.
MAY_TELL_URIS = ("storage/", "output/__init__.py", "commands/text.py")

PARTS = [path for path in MODULES if path != PACKAGE / "__init__.py"]


def _name(path: Path) -> str:
    """The module's dotted name inside the package; '' for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Absolute names of what the import statements among the nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _own_imports(path: Path, nodes: Iterable[ast.AST]) -> set[str]:
    """The modules of ours among the imports, by their names inside the package."""
    known = {_name(module) for module in MODULES} - {""}
    found = set()
    for name in _imports(nodes):
        own = name.removeprefix("rgpt_batch.")
        if own != name:
            found.add(own if own in known else own.rpartition(".")[0])
    return found & known - {_name(path)}


def _room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_stands_in_a_room_that_is_listed() -> None:
    assert {_room(_name(path)) for path in PARTS} == LAYER_OF.keys()


@pytest.mark.parametrize("path", PARTS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_from_its_own_room_and_lower_ones(path: Path) -> None:
    room = _room(_name(path))
    others = {name for name in _own_imports(path, ast.walk(_tree(path))) if _room(name) != room}
    assert [name for name in others if LAYER_OF[_room(name)] >= LAYER_OF[room]] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_no_import_goes_in_a_circle() -> None:
    # Imports inside functions run when the rest is loaded, so they cannot.
    graph = {_name(path): _own_imports(path, _tree(path).body) for path in PARTS}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("records") < order.index("scoring.score") < order.index("job.run_job")


@pytest.mark.parametrize("package", CONFINED)
def test_heavy_package_is_imported_where_it_belongs_alone(package: str) -> None:
    importers = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(name.split(".")[0] == package for name in _imports(ast.walk(_tree(path))))
    ]
    assert importers, f"nothing imports {package}; take it out of this test"
    assert [name for name in importers if not name.startswith(CONFINED[package])] == []


def test_only_the_storage_tells_uris_from_paths() -> None:
    tellers = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if "rgpt_batch.storage.uris.is_uri" in _imports(ast.walk(_tree(path)))
    ]
    assert [name for name in tellers if not name.startswith(MAY_TELL_URIS)] == []
    assert tellers


_LOADED = "print([m for m in ('torch', 'ray', 'vllm', 'transformers') if m in sys.modules])"


@pytest.mark.parametrize(
    "code",
    [
        "import rgpt_batch",
        "from rgpt_batch import JobConfig, load_config; load_config(None, ('model.name=m',))",
        "from rgpt_batch import run_job, verify_output",
        "from rgpt_batch.executors.unit_runner import UnitRunner",
        "import rgpt_batch.cli, rgpt_batch.engines, rgpt_batch.executors",
    ],
)
def test_import_loads_no_heavy_package(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{_LOADED}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["--version"]])
def test_help_loads_no_heavy_package(arguments: list[str]) -> None:
    code = f"""
import atexit, sys
atexit.register(lambda: {_LOADED})
sys.argv = ["rgpt-batch", *{arguments}]
from rgpt_batch.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *shown, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert shown
