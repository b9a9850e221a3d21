"""What the names of a file are bound to: the modules that it imports from a package that is moved from, and their uses.

A binding is a name in a scope; `import transformers` and `import transformers.models.bert` bind the same one.
"""

import builtins
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import libcst as cst
from libcst import metadata

from modelwright.migration import destinations

_OURS = "modelwright"
_PROVIDERS = (
    metadata.ParentNodeProvider,
    metadata.PositionProvider,
    metadata.ExpressionContextProvider,
    metadata.ScopeProvider,
)


@dataclass(frozen=True)
class Use:
    """A path of attributes that begins at a module: `nodes[0]` is the name, `nodes[i]` the path up to its i-th part."""

    nodes: tuple[cst.BaseExpression, ...]
    line: int
    is_read: bool

    @property
    def path(self) -> tuple[str, ...]:
        """The parts after the name."""
        return tuple(node.attr.value for node in self.nodes if isinstance(node, cst.Attribute))


@dataclass
class Binding:
    """A name that stands for a module of theirs, in one scope.

    `module` is what the name stands for ("transformers" after `import transformers.models`), `imports` what binds it,
    `bare` the lines where the module itself is used as an object, `obstacle` why its uses cannot be told.
    """

    local: str
    module: str
    imports: list[cst.ImportAlias] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    bare: list[int] = field(default_factory=list)
    obstacle: str | None = None


def dotted(node: cst.CSTNode | None) -> str | None:
    """Return "a.b.c" of a chain of attributes of a name, None for another expression."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        front = dotted(node.value)
        return None if front is None else f"{front}.{node.attr.value}"
    return None


def local_name(alias: cst.ImportAlias) -> str:
    """Return the name that an alias of an import statement binds."""
    return alias.evaluated_alias or (dotted(alias.name) or "").partition(".")[0]


class Bindings:
    """The bindings of a file, and what else is to be known about its names."""

    def __init__(self, wrapper: metadata.MetadataWrapper) -> None:
        found: dict[Any, Any] = dict(wrapper.resolve_many(_PROVIDERS))  # in as few walks through the file as possible
        self._parents = found[metadata.ParentNodeProvider]
        self._positions = found[metadata.PositionProvider]
        self._contexts = found[metadata.ExpressionContextProvider]
        scopes: Iterable[metadata.Scope | None] = found[metadata.ScopeProvider].values()
        self._scopes = list(dict.fromkeys(scope for scope in scopes if scope is not None))
        # The alias that made a binding, or the string that is an annotation with a name of theirs in it.
        self.of_alias: dict[cst.ImportAlias, Binding] = {}
        self.annotations: list[cst.CSTNode] = []
        self.undefined: set[str] = set()
        self.ours_is_taken = False
        self._bindings: dict[tuple[metadata.Scope, str], Binding] = {}
        for scope in self._scopes:
            self._collect(scope)
        for scope in self._scopes:
            for access in scope.accesses:
                self._note(access)
        if self._bindings:
            self._find_obstacles(wrapper.module)

    def line(self, node: cst.CSTNode) -> int:
        """Return the line of a node; the first is 1."""
        return int(self._positions[node].start.line)

    def _collect(self, scope: metadata.Scope) -> None:
        for assignment in scope.assignments:
            if assignment.name.partition(".")[0] == _OURS and not _imports_ours(assignment):
                self.ours_is_taken = True
            if not isinstance(assignment, metadata.ImportAssignment):
                continue
            for alias, module in _modules_of(assignment.node):
                if alias in self.of_alias or local_name(alias) != assignment.name.partition(".")[0]:
                    continue
                key = (assignment.scope, local_name(alias))
                binding = self._bindings.setdefault(key, Binding(key[1], module))
                binding.imports.append(alias)
                self.of_alias[alias] = binding
                if binding.module != module:
                    binding.obstacle = f"{binding.local} stands for more than one module"

    def _note(self, access: metadata.Access) -> None:
        """Note one use of a name."""
        node: cst.CSTNode = access.node
        while isinstance(node, cst.Attribute):
            node = node.value
        # libcst does not look at what is bound further down, as the body of a loop may.
        referents = access.referents or (access.scope[node.value] if isinstance(node, cst.Name) else set())
        if not referents:
            if isinstance(node, cst.Name) and not hasattr(builtins, node.value) and not node.value.startswith("__"):
                self.undefined.add(node.value)
            return
        keys = {(each.scope, each.name.partition(".")[0]) for each in referents}
        bindings = [self._bindings[key] for key in keys if key in self._bindings]
        if not bindings:
            return
        if not isinstance(node, cst.Name):
            self.annotations.append(node)
            return
        chain = [node, *self._attributes_of(node)]
        is_read = self._contexts.get(chain[-1]) in (None, metadata.ExpressionContext.LOAD)
        for binding in bindings:
            if len(keys) > 1:
                binding.obstacle = f"{binding.local} has more than one meaning in line {self.line(node)}"
            if len(chain) == 1:
                binding.bare.append(self.line(node))
            elif not any(use.nodes[0] is node for use in binding.uses):
                binding.uses.append(Use(tuple(chain), self.line(node), is_read))

    def _attributes_of(self, node: cst.CSTNode) -> Iterable[cst.Attribute]:
        while isinstance(above := self._parents[node], cst.Attribute) and above.value is node:
            yield above
            node = above

    def _find_obstacles(self, module: cst.Module) -> None:
        declared = _Declared()
        module.visit(declared)
        for (scope, local), binding in self._bindings.items():
            others = [
                each
                for each in scope.assignments
                if each.name == local and not (isinstance(each, metadata.ImportAssignment) and _binds(each, binding))
            ]
            if others:
                binding.obstacle = f"the file gives the name {local} another meaning, too"
            elif local in declared.names:
                binding.obstacle = f"a function declares the name {local} global or nonlocal"
            elif local in declared.matched:
                binding.obstacle = f"a case of a match statement uses {local}"


class _Declared(cst.CSTVisitor):
    """Collects the names that are declared global or nonlocal, and those in patterns, which libcst does not resolve."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.matched: set[str] = set()

    def visit_MatchClass(self, node: cst.MatchClass) -> None:
        """Note the first name of a class in a pattern."""
        self.matched.add((dotted(node.cls) or "").partition(".")[0])

    def visit_MatchValue(self, node: cst.MatchValue) -> None:
        """Note the first name of a value in a pattern."""
        self.matched.add((dotted(node.value) or "").partition(".")[0])

    def visit_NameItem(self, node: cst.NameItem) -> None:
        """Note a name."""
        self.names.add(node.name.value)


def _binds(assignment: metadata.ImportAssignment, binding: Binding) -> bool:
    return any(alias in binding.imports for alias, _ in _modules_of(assignment.node))


def _imports_ours(assignment: metadata.BaseAssignment) -> bool:
    """Tell whether an assignment is an import of modelwright under its own name."""
    node = getattr(assignment, "node", None)
    if not isinstance(node, cst.Import):
        return False
    return all(
        (dotted(alias.name) or "").partition(".")[0] == _OURS for alias in node.names if local_name(alias) == _OURS
    )


def _is_ours_too(package: str, name: str) -> bool:
    """Tell whether a from-import binds a module that we have, too."""
    if destinations.package_of(package) is None:
        return False
    return destinations.is_module(destinations.moved_module(f"{package}.{name}"))


def _modules_of(node: cst.CSTNode) -> list[tuple[cst.ImportAlias, str]]:
    """Return the aliases of a statement that bind a module of a package that is moved from, and what they bind."""
    if not isinstance(node, cst.Import | cst.ImportFrom) or isinstance(node.names, cst.ImportStar):
        return []
    found = []
    package = dotted(node.module) if isinstance(node, cst.ImportFrom) else None
    for alias in node.names:
        name = dotted(alias.name) or ""
        if isinstance(node, cst.Import):
            if destinations.package_of(name):
                found.append((alias, name if alias.asname else name.partition(".")[0]))
        elif package and _is_ours_too(package, name) and not node.relative:
            found.append((alias, f"{package}.{name}"))
    return found
