"""What Triton looks for in a backend; nothing is compiled."""

from __future__ import annotations

from typing import Any

from triton.backends.compiler import BaseBackend


class CpuBackend(BaseBackend):
    @staticmethod
    def supports_target(target: Any) -> bool:
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        return "cpu"

    def parse_options(self, options: Any) -> None: ...

    def add_stages(self, stages: Any, options: Any) -> None: ...

    def load_dialects(self, context: Any) -> None: ...

    def get_module_map(self) -> dict[str, Any]:
        return {}
