"""What our source asks of a library, read from the source, against what the library has.

For libraries whose code cannot run here. A value's class is followed from where the library made it:
a constructor, the result of a method (the library says of which class), a property. Parameters of
ours that hold a library's object are told by their names. An attribute of something that came from the
library and whose class is not known is a finding too, so that no new use escapes.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PLAIN = {"", "int", "bool", "str", "float", "None", "bytes", "list", "tuple", "dict", "object", "capsule"}
"""Results that are Python's own, or not told; nothing of the library is asked of them."""

DUMP = r"""
import importlib, json, re, sys
library = importlib.import_module(sys.argv[1])

def entry(member):
    kind = "property" if isinstance(member, property) else "method" if callable(member) else "value"
    doc = (member.fget if kind == "property" else member).__doc__ or ""
    found = re.search(r"\) -> (list\[|(?:[\w.:]*[.:])?(\w+))", doc)
    return [kind, (found[2] or "list") if found and kind != "value" else "", doc[:2000]]

json.dump({
    "version": getattr(library, "__version__", ""),
    "names": {name: entry(getattr(library, name)) for name in dir(library)},
    "classes": {
        name: {member: entry(getattr(kind, member)) for member in dir(kind)}
        for name, kind in vars(library).items() if isinstance(kind, type)
    },
}, sys.stdout)
"""
"""A program that prints what a library has, as JSON; its argument is the module."""


class Entry(NamedTuple):
    """A name of a module or a class."""

    kind: str
    """`method` (functions and classes, too), `property` or `value`."""
    returns: str = ""
    """Class of what it gives, where the library tells."""
    doc: str = ""


class Api(NamedTuple):
    """What a library has."""

    names: Mapping[str, Entry]
    classes: Mapping[str, Mapping[str, Entry]]
    version: str = ""


class Lib(NamedTuple):
    """Something of a library's: a `module`, a `class`, a `call` that gives a class, or an `object` of one."""

    kind: str
    name: str
    doc: str = ""


class Reader(ast.NodeVisitor):
    """Reads a file of ours against the libraries it uses.

    Args:
        modules: The names under which the file holds a library's module, and what that has.
        parameters: Class of a parameter, by its name.
        skip: Functions and classes of ours that are for another library.

    """

    def __init__(
        self,
        modules: Mapping[str, Api],
        parameters: Mapping[str, str] = {},
        skip: frozenset[str] = frozenset(),
    ) -> None:
        self._modules = modules
        self._classes = {name: each for api in modules.values() for name, each in api.classes.items()}
        # A result is told by its name in C++, which a class of Python's has without the leading I.
        self._classes = {f"I{name}": each for name, each in self._classes.items()} | self._classes
        self._parameters = parameters
        self._skip = skip
        self._known: dict[str, Lib] = {}
        self.findings: list[str] = []
        self.uses: set[str] = set()

    def read(self, source: str) -> list[str]:
        """Return what the source asks for and the library does not have, each with its line."""
        tree = ast.parse(source)
        self.visit(tree)
        self.findings.clear()
        self.visit(tree)  # an attribute of `self` may be read above where it is set
        return self.findings

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if node.name not in self._skip:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in self._skip:
            return
        for argument in node.args.args:
            self._known.pop(argument.arg, None)
            if argument.arg in self._parameters:
                self._known[argument.arg] = Lib("object", self._parameters[argument.arg])
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        pairs = [(target, node.value) for target in node.targets]
        if isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple):
            pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
        for target, given in pairs:
            value = self.visit(given)
            self.visit(target)
            if isinstance(target, ast.Attribute) and target.attr == "__class__" and value:
                self._known[_key(target.value)] = Lib("object", value.name)
            elif value:
                self._known[_key(target)] = value

    def visit_Name(self, node: ast.Name) -> Lib | None:
        return Lib("module", node.id) if node.id in self._modules else self._known.get(node.id)

    def visit_IfExp(self, node: ast.IfExp) -> Lib | None:
        self.visit(node.test)
        body, other = self.visit(node.body), self.visit(node.orelse)
        return body or other  # type: ignore[no-any-return]

    def visit_Attribute(self, node: ast.Attribute) -> Lib | None:
        name = node.attr
        if _key(node.value) == "self" and name.lstrip("_") in self._modules:
            return Lib("module", name.lstrip("_"))
        owner = self.visit(node.value)
        if owner is None or owner.kind == "call":
            return self._known.get(_key(node))
        if owner.kind == "module":
            where, members = owner.name, self._modules[owner.name].names
        else:
            where, members = owner.name, self._classes.get(owner.name)
        self.uses.add(f"{where}.{name}")
        if members is None:
            self._find(node, f"{ast.unparse(node.value)} is of no class that is known")
        elif name not in members:
            self._find(node, f"{where} has no {name}")
        elif owner.kind == "module" and name in self._classes:
            return Lib("class", name, members[name].doc)
        else:
            return _value(members[name])
        return None

    def visit_Call(self, node: ast.Call) -> Lib | None:
        called = self.visit(node.func)
        for argument in (*node.args, *node.keywords):
            self.visit(argument)
        if called is None:
            return None
        for keyword in node.keywords:
            if called.doc and not re.search(rf"\b{keyword.arg}\b", called.doc):
                self._find(node, f"{ast.unparse(node.func)} takes no {keyword.arg}")
        return None if called.name in PLAIN else Lib("object", called.name)

    def _find(self, node: ast.expr, what: str) -> None:
        self.findings.append(f"{node.lineno}: {what}")


def _value(entry: Entry) -> Lib | None:
    if entry.kind == "method":
        return Lib("call", entry.returns, entry.doc)
    return None if entry.returns in PLAIN else Lib("object", entry.returns)


def _key(node: ast.expr) -> str:
    """Return a name for a variable or an attribute of `self`."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def of_double(path: Path, classes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what the classes of a double have for others to use: the real class, and the name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name in classes:
            for inner in ast.walk(node):
                name = inner.name if isinstance(inner, ast.FunctionDef) else ""
                if isinstance(inner, ast.Attribute) and _key(inner.value) == "self":
                    name = inner.attr
                if name and not name.startswith("_"):
                    yield classes[node.name], name
