"""Which modules of tests share a process."""

from __future__ import annotations

from pathlib import Path

from tests.sharing import group


def _module(folder: Path, name: str, *marks: str) -> str:
    # The marks are put together here: this module itself starts neither of the two.
    path = folder / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"pytestmark = pytest.mark.{mark}\n" for mark in marks))
    return str(path)


def test_module_is_a_group_of_its_own(tmp_path: Path) -> None:
    modules = [_module(tmp_path, "test_a"), _module(tmp_path, "test_b", "vllm")]
    assert list(map(group, modules)) == modules


def test_modules_that_start_ray_are_one_group_wherever_they_are(tmp_path: Path) -> None:
    ray = _module(tmp_path / "a", "test_a", "ray")
    assert group(ray) == group(_module(tmp_path / "b", "test_b", "ray"))
    assert group(ray) != group(_module(tmp_path / "a", "test_c"))


def test_engines_in_ray_are_a_group_beside_the_rest_of_ray(tmp_path: Path) -> None:
    both = [_module(tmp_path / folder, "test_a", "ray", "vllm") for folder in ("a", "b")]
    assert group(both[0]) == group(both[1]) != group(_module(tmp_path, "test_c", "ray"))


def test_group_of_a_module_is_found_from_its_place_in_the_project() -> None:
    assert group("tests/test_sharing.py") == "tests/test_sharing.py"
