"""Looks for parts of vLLM in its source, as engines.vllm.hooks does in the installed package.

Nothing is imported or run: classes, signatures and annotations are read as syntax trees. What a
base class from another package adds is not seen.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rgpt_batch.engines.vllm.hooks import Field, Hook, Member, Method, OfInstance, describe

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class VllmSource:
    """The Python files of one version.

    Args:
        root: The folder that holds `vllm/`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def missing(self, hooks: Sequence[Hook]) -> list[str]:
        """Name what this version lacks, as hooks.missing does."""
        names = []
        for hook in hooks:
            path = f"{hook.module}.{hook.name}"
            found = self._find(hook.module, hook.name)
            if found is None:
                names.append(path)
                continue
            module, owner = found
            if hook.keywords and not self._takes(module, owner, hook.keywords):
                names.append(f"{path}({', '.join(hook.keywords)})")
            names += [
                f"{path}.{describe(each)}"
                for each in hook.members
                if not self._has(module, owner, each)
            ]
        return names

    def _find(self, module: str, name: str) -> tuple[str, ast.stmt] | None:
        """Find a class or function, also where a module only passes it on."""
        tree, is_package = self._parse(module)
        if tree is None:
            return None
        for node in _statements(tree.body):
            if isinstance(node, (ast.ClassDef, *_FUNCTIONS)) and node.name == name:
                return module, node
        for node in _statements(tree.body):
            if not isinstance(node, ast.ImportFrom):
                continue
            for alias in node.names:
                if alias.name == "*" or (alias.asname or alias.name) == name:
                    source = _absolute(module, node, is_package)
                    wanted = name if alias.name == "*" else alias.name
                    if source.split(".")[0] == "vllm" and (found := self._find(source, wanted)):
                        return found
        return None

    @functools.cache  # noqa: B019 - a script with one object for each version
    def _parse(self, module: str) -> tuple[ast.Module | None, bool]:
        path = self._root.joinpath(*module.split("."))
        for file, is_package in ((path.with_suffix(".py"), False), (path / "__init__.py", True)):
            if file.is_file():
                return ast.parse(file.read_text(encoding="utf-8")), is_package
        return None, False

    def _classes(self, module: str, owner: ast.stmt) -> Iterator[ast.ClassDef]:
        """Give the class and those of its bases that are vLLM's."""
        if not isinstance(owner, ast.ClassDef):
            return
        yield owner
        for base in owner.bases:
            inner = base.value if isinstance(base, ast.Subscript) else base
            if isinstance(inner, ast.Name) and (found := self._find(module, inner.id)):
                yield from self._classes(*found)

    def _method(self, module: str, owner: ast.stmt, name: str) -> _Function | None:
        for each in self._classes(module, owner):
            for node in _statements(each.body):
                if isinstance(node, _FUNCTIONS) and node.name == name:
                    return node
        return None

    def _fields(self, module: str, owner: ast.stmt) -> dict[str, ast.AnnAssign]:
        found: dict[str, ast.AnnAssign] = {}
        for each in self._classes(module, owner):
            for node in _statements(each.body):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found.setdefault(node.target.id, node)
        return found

    def _has(self, module: str, owner: ast.stmt, member: Member) -> bool:
        match member:
            case Method():
                method = self._method(module, owner, member.name)
                if method is None:
                    return False
                behind_self = _parameters(method)[1:]
                return tuple(behind_self[: len(member.parameters)]) == member.parameters
            case Field():
                field = self._fields(module, owner).get(member.name)
                return field is not None and member.type.__name__ in _types(field.annotation)
            case OfInstance():
                made = self._method(module, owner, "__init__")
                return made is not None and member.name in _set_attributes(made)
        names = {
            target.id
            for each in self._classes(module, owner)
            for node in _statements(each.body)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        is_there = member in names or member in self._fields(module, owner)
        return is_there or self._method(module, owner, member) is not None

    def _takes(self, module: str, owner: ast.stmt, keywords: tuple[str, ...]) -> bool:
        """Whether a call with just these arguments fits."""
        called: _Function | None
        if isinstance(owner, _FUNCTIONS):
            called, skipped = owner, 0
        else:
            called, skipped = self._method(module, owner, "__init__"), 1
        if called is not None:
            allowed = [*_parameters(called)[skipped:], *(a.arg for a in called.args.kwonlyargs)]
            positional = _parameters(called)[skipped:]
            required = set(positional[: len(positional) - len(called.args.defaults)])
            required |= {
                argument.arg
                for argument, default in zip(
                    called.args.kwonlyargs, called.args.kw_defaults, strict=True
                )
                if default is None
            }
            takes_all = called.args.kwarg is not None
        else:
            fields = {
                name: field
                for name, field in self._fields(module, owner).items()
                if "ClassVar" not in _types(field.annotation)
            }
            allowed, takes_all = list(fields), False
            required = {name for name, field in fields.items() if field.value is None}
        return required <= set(keywords) and (takes_all or set(keywords) <= set(allowed))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Give the statements of a body, and of what stands below `if` and `try` in it."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements(node.body)
            yield from _statements(node.orelse)
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from _statements(handler.body)


def _absolute(module: str, node: ast.ImportFrom, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _parameters(function: _Function) -> list[str]:
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]


def _set_attributes(function: _Function) -> set[str]:
    """Name the attributes of self that a method sets."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def _types(annotation: ast.expr) -> set[str]:
    """Name the types that a value may have: np.ndarray of `Annotated[np.ndarray, …] | None`."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _types(left) | _types(right)
        case ast.Constant(value=str(text)):
            return _types(ast.parse(text, mode="eval").body)
        case ast.Subscript(value=value, slice=inner):
            (name,) = _types(value)
            if name not in ("Annotated", "Optional", "Union"):
                return {name}
            inners = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            inners = inners[:1] if name == "Annotated" else inners
            return set().union(*map(_types, inners))
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return {name}
    return {ast.unparse(annotation)}
