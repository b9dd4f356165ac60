"""YAML, in which nothing may be said twice: of two equal keys the parser would take the last."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in lines:
                raise yaml.composer.ComposerError(
                    problem=f"'{key.value}' stands in line {lines[key.tag, key.value]} already. "
                    "Say it once",
                    problem_mark=key.start_mark,
                )
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node


def load_yaml(text: str) -> Any:
    """Read YAML without running anything.

    Raises:
        yaml.YAMLError: It is none, or a key is given twice.
    """
    return yaml.load(text, Loader=_Loader)
