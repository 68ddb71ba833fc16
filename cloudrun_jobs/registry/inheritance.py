"""Read from source code, without running it, whether a class can be a job."""

from __future__ import annotations

import ast
import builtins
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
STANDARD_LIBRARY = str(Path(os.__file__).parent)
# Among the names of a module: `from x import *`, and calls, which may define any name.
STAR, CALLS = "*", "()"


class Module(NamedTuple):
    name: str


class Class(NamedTuple):
    module: str
    node: ast.ClassDef


class Imported(NamedTuple):
    module: str
    name: str


class NoJob:
    """An object of Python or Django, and its attributes: they know no jobs."""


class Unknown:
    """An object that only an import reveals."""


Meaning = Module | Class | type[NoJob | Unknown]
Definition = Module | ast.ClassDef | ast.expr | Imported | type[Unknown]
Definitions = Mapping[str, Sequence[Definition]]


class SourceReader:
    """Follows the base classes of commands through the modules that define them, and reads each module once."""

    def __init__(self) -> None:
        self._modules: dict[str, Definitions | None] = {}
        # What is being looked up: imports may be circular, and a class may derive from one of its own name.
        self._pending: set[object] = set()

    def excludes_job(self, module: str, name: str) -> bool:
        """Return True if no class of that name in the module can derive from `CloudRunJobs`.

        False also means that the source does not say so: it is missing, or the class is the result of a call.
        """
        try:
            definitions = self._definitions(module)
            if definitions is not None and definitions.keys().isdisjoint({name, STAR, CALLS, "__getattr__"}):
                return True
            return all(map(self._is_no_job, self._attribute(module, name)))
        except Exception:  # noqa: BLE001  (source that cannot be parsed, an import hook: the import reports it)
            return False

    def _is_no_job(self, meaning: Meaning) -> bool:
        if not isinstance(meaning, Class):
            return meaning is NoJob
        if meaning in self._pending:
            return True
        if meaning.node.decorator_list or meaning.node.keywords:
            return False  # A decorator, or a metaclass, may return any class.
        self._pending.add(meaning)
        try:
            bases = [base for node in meaning.node.bases for base in self._evaluate(meaning.module, node)]
            return all(map(self._is_no_job, bases))
        finally:
            self._pending.discard(meaning)

    def _evaluate(self, module: str, node: ast.expr) -> Iterator[Meaning]:
        match node:
            case ast.Name(id=name):
                yield from list(self._lookup(module, name)) or [NoJob if hasattr(builtins, name) else Unknown]
            case ast.Attribute(value=value, attr=name):
                for meaning in self._evaluate(module, value):
                    if isinstance(meaning, Module):
                        yield from self._attribute(meaning.name, name)
                    else:
                        yield NoJob if meaning is NoJob else Unknown
            case ast.Subscript(value=value):  # Generic[T]
                yield from self._evaluate(module, value)
            case _:
                yield Unknown

    def _attribute(self, module: str, name: str) -> Iterator[Meaning]:
        """Yield everything that an attribute of the module, or a module of the package, may be."""
        below = f"{module}.{name}"
        yield from list(self._lookup(module, name)) or [Module(below) if self._spec(below) else Unknown]

    def _lookup(self, module: str, name: str) -> Iterator[Meaning]:
        """Yield everything that the name may be in the module; nothing if the module does not define it."""
        package = module.partition(".")[0]
        if package == "django" or self._is_standard_library(package):
            yield NoJob
        elif package == "cloudrun_jobs":
            yield Unknown
        elif (module, name) not in self._pending:
            self._pending.add((module, name))
            try:
                yield from self._read(module, name)
            finally:
                self._pending.discard((module, name))

    def _read(self, module: str, name: str) -> Iterator[Meaning]:
        definitions = self._definitions(module)
        if definitions is None or "__getattr__" in definitions:
            yield Unknown
            return
        for definition in (*definitions.get(name, ()), *definitions.get(STAR, ())):
            match definition:
                case ast.ClassDef():
                    yield Class(module, definition)
                case ast.expr():
                    yield from self._evaluate(module, definition)
                case Imported(origin, "*"):
                    yield from self._lookup(origin, name)
                case Imported(origin, attribute):
                    yield from self._attribute(origin, attribute)
                case _:
                    yield definition

    def _is_standard_library(self, package: str) -> bool:
        if package not in sys.stdlib_module_names:
            return False
        spec = self._spec(package)
        origin = (spec and spec.origin) or ""
        return origin in {"built-in", "frozen"} or origin.startswith(STANDARD_LIBRARY)

    def _definitions(self, module: str) -> Definitions | None:
        """Return the definitions of each name of the module; None if its source is not available."""
        if module not in self._modules:
            self._modules[module] = self._parse(module)
        return self._modules[module]

    def _parse(self, module: str) -> Definitions | None:
        spec = self._spec(module)
        get_source = getattr(spec and spec.loader, "get_source", None)
        source = get_source(module) if get_source else None
        if spec is None or source is None:
            return None
        package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
        definitions: dict[str, list[Definition]] = {}
        for node in _run_on_import(ast.parse(source)):
            for name, definition in (*_imports(node, package), *_assignments(node)):
                definitions.setdefault(name, []).append(definition)
        return definitions

    def _spec(self, module: str) -> ModuleSpec | None:
        """Find a module as an import does, but without importing its packages."""
        if loaded := sys.modules.get(module):
            return getattr(loaded, "__spec__", None)
        path = None
        if parent := module.rpartition(".")[0]:
            spec = self._spec(parent)
            if spec is None or spec.submodule_search_locations is None:
                return None
            path = spec.submodule_search_locations
        found = (finder.find_spec(module, path) for finder in sys.meta_path)
        return next((spec for spec in found if spec is not None), None)


def _run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run on import: those in `if` and `try`, not those in functions and classes."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, SCOPES):
            yield from _run_on_import(child)


def _imports(node: ast.AST, package: str) -> Iterator[tuple[str, Definition]]:
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                top = alias.name.partition(".")[0]
                yield (alias.asname, Module(alias.name)) if alias.asname else (top, Module(top))
        case ast.ImportFrom(names=aliases, module=module, level=level):
            origin = resolve_name("." * level + (module or ""), package)
            for alias in aliases:
                yield alias.asname or alias.name, Imported(origin, alias.name)


def _assignments(node: ast.AST) -> Iterator[tuple[str, Definition]]:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.Assign(targets=targets):
            yield from ((name.id, Unknown) for target in targets for name in _stored(target))
        case (
            ast.For(target=target)
            | ast.NamedExpr(target=target)
            | ast.withitem(optional_vars=ast.expr() as target)
        ):
            yield from ((name.id, Unknown) for name in _stored(target))
        case ast.ClassDef(name=name):
            yield name, node
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name, Unknown
            yield from (
                (name, Unknown) for part in ast.walk(node) if isinstance(part, ast.Global) for name in part.names
            )
    if isinstance(node, ast.Call) or getattr(node, "decorator_list", None):
        yield CALLS, Unknown


def _stored(target: ast.expr) -> list[ast.Name]:
    return [node for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
