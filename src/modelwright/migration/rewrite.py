"""Rewriting one file: its imports from transformers and pytorch_quantization, and the attribute paths that begin there.

Nothing else is touched: comments and layout stay. An import moves if all that is used from it is here; else it is split,
and the rest stays where it was. A file that was rewritten once is not changed again.
"""

import builtins
from collections.abc import Sequence

import libcst as cst
from libcst import metadata

from modelwright.core.errors import InputError
from modelwright.migration import advice, destinations
from modelwright.migration.changes import Changes, Note

_OURS = "modelwright"


def rewrite(source: str, path: str = "<text>") -> Changes:
    """Return what becomes of a Python text; raise InputError, naming `path` and the line, if it cannot be parsed."""
    try:
        wrapper = metadata.MetadataWrapper(cst.parse_module(source))
    except (cst.ParserSyntaxError, UnicodeError, RecursionError, ValueError) as error:
        line = getattr(error, "raw_line", None)
        where = path if line is None else f"{path}, line {line}"
        text = getattr(error, "message", str(error)).splitlines()[0]
        raise InputError(f"{where}: this is no Python that can be parsed: {text}") from None
    survey = Survey()
    wrapper.visit(survey)
    changes = Changes(source, source, kept=survey.kept, by_hand=survey.by_hand)
    rewriter = Rewriter(survey, changes)
    changes.after = wrapper.visit(rewriter).code
    changes.by_hand += survey.advice(changes.moved)
    for notes in (changes.moved, changes.kept, changes.by_hand):
        notes.sort(key=lambda note: (note.line, note.what))
    return changes


def dotted(node: cst.BaseExpression | None) -> str | None:
    """Return "a.b.c" of a chain of attributes of a name, None for another expression."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        front = dotted(node.value)
        return None if front is None else f"{front}.{node.attr.value}"
    return None


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (
        metadata.PositionProvider,
        metadata.QualifiedNameProvider,
        metadata.ScopeProvider,
        metadata.ParentNodeProvider,
    )

    def line(self, node: cst.CSTNode) -> int:
        """Return the line of a node."""
        position: metadata.CodeRange = self.get_metadata(metadata.PositionProvider, node)
        return position.start.line

    def imported_as(self, node: cst.CSTNode) -> str | None:
        """Return the full name of what an expression names, if it was imported from a package that is moved from."""
        found = self.get_metadata(metadata.QualifiedNameProvider, node, set())
        names = {each.name for each in found if each.source is metadata.QualifiedNameSource.IMPORT}
        if len(found) != 1 or len(names) != 1:
            return None
        (name,) = names
        return name if destinations.package_of(name) else None


class Survey(_Visitor):
    """Reads a file: how modules are used, which names are taken, what is to be said."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Note] = []
        self.by_hand: list[Note] = []
        # Whole attribute paths below a module that was imported as such, by the name that the module has in the file.
        self.uses: dict[str, list[str]] = {}
        # Names of modules that are used as objects, so that nobody knows what is taken from them.
        self.bare: dict[str, int] = {}
        self.bound: set[str] = set()
        self.undefined: set[str] = set()
        self._calls: list[tuple[str, int, tuple[str, ...]]] = []

    def visit_Module(self, node: cst.Module) -> None:
        """Note the names of the file, and those that it uses without defining them."""
        scopes = {scope for scope in self.metadata[metadata.ScopeProvider].values() if scope is not None}
        for scope in scopes:
            self.bound |= {
                assignment.name for assignment in scope.assignments if not _is_ours(assignment)
            }
            self.undefined |= {
                access.node.value
                for access in scope.accesses
                if isinstance(access.node, cst.Name) and not access.referents and not hasattr(builtins, access.node.value)
            }

    def visit_Name(self, node: cst.Name) -> None:
        """Note how a module that was imported as such is used."""
        full = self.imported_as(node)
        parent = self.get_metadata(metadata.ParentNodeProvider, node)
        if full is None or isinstance(parent, cst.ImportAlias | cst.AsName | cst.ImportFrom):
            return
        if not self._is_module_binding(node):
            return
        if isinstance(parent, cst.Attribute) and (parent.attr is node or self._in_import(parent)):
            return
        chain: cst.CSTNode = node
        while isinstance(above := self.get_metadata(metadata.ParentNodeProvider, chain), cst.Attribute):
            if above.value is not chain:
                break
            chain = above
        if chain is node:
            self.bare.setdefault(node.value, self.line(node))
            return
        path = dotted(chain)  # type: ignore[arg-type]
        assert path is not None
        self.uses.setdefault(node.value, []).append(full + path.removeprefix(node.value))

    def _is_module_binding(self, node: cst.Name) -> bool:
        scope = self.get_metadata(metadata.ScopeProvider, node, None)
        if scope is None:
            return False
        return any(
            isinstance(found, metadata.ImportAssignment) and isinstance(found.node, cst.Import)
            for found in scope[node.value]
        )

    def _in_import(self, node: cst.CSTNode) -> bool:
        parent = self.get_metadata(metadata.ParentNodeProvider, node, None)
        while isinstance(parent, cst.Attribute):
            parent = self.get_metadata(metadata.ParentNodeProvider, parent, None)
        return isinstance(parent, cst.ImportAlias | cst.ImportFrom)

    def visit_Call(self, node: cst.Call) -> None:
        """Note the keywords of calls of what was imported."""
        full = self.imported_as(node.func)
        if full is not None:
            keywords = tuple(argument.keyword.value for argument in node.args if argument.keyword is not None)
            self._calls.append((full, self.line(node), keywords))

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        """Note strings that name a module, such as those of mock.patch."""
        value = node.raw_value
        if destinations.package_of(value) and value.replace(".", "").replace("_", "").isalnum() and "." in value:
            self.by_hand.append(Note(self.line(node), value, "a string names a module; change it if it is imported by it"))

    def advice(self, moved: Sequence[Note]) -> list[Note]:
        """Return what is to be changed by hand in the calls of the file, given what was moved."""
        names = {note.what.rpartition(".")[2] for note in moved}
        notes = [
            Note(note.line, note.what, advice.DIFFERENCES[name])
            for note in moved
            if (name := note.what.rpartition(".")[2]) in advice.DIFFERENCES
        ]
        has_models = any(name.endswith("Model") or "For" in name or name.startswith("AutoModel") for name in names)
        for full, line, keywords in self._calls:
            last = full.rpartition(".")[2]
            if last == "from_pretrained" and destinations.moved_path(full):
                notes += [
                    Note(line, f"{keyword}=", advice.REFUSED_ARGUMENTS[keyword])
                    for keyword in keywords
                    if keyword in advice.REFUSED_ARGUMENTS
                ]
            if last in advice.RUNS_MODELS and has_models:
                notes.append(Note(line, last, "stays with transformers and must not be given a model of modelwright"))
        return notes


def _is_ours(assignment: metadata.BaseAssignment) -> bool:
    """Tell whether an assignment is an import of modelwright, which may stand beside what is added."""
    node = getattr(assignment, "node", None)
    if isinstance(node, cst.Import):
        return all((dotted(alias.name) or "").partition(".")[0] == _OURS for alias in node.names)
    return False


class Rewriter(cst.CSTTransformer):
    """Rewrites a file as its survey says."""

    METADATA_DEPENDENCIES = _Visitor.METADATA_DEPENDENCIES

    def __init__(self, survey: Survey, changes: Changes) -> None:
        super().__init__()
        self.survey, self.changes = survey, changes
        # Names of modules in the file whose paths are rewritten.
        self._moves: dict[str, bool] = {}

    line = _Visitor.line
    imported_as = _Visitor.imported_as

    # --- import a.b as c ------------------------------------------------------------------------------------------

    def leave_Import(
        self, original_node: cst.Import, updated_node: cst.Import
    ) -> cst.Import | cst.FlattenSentinel[cst.BaseSmallStatement]:
        """Move each module of the statement, or keep it and put ours beside it."""
        ours: list[cst.ImportAlias] = []
        theirs: list[cst.ImportAlias] = []
        for alias in updated_node.names:
            module = dotted(alias.name) or ""
            if destinations.package_of(module) is None:
                theirs.append(alias)
                continue
            moved, kept = self._placed(original_node, module, alias)
            ours += moved
            theirs += [alias] if kept else []
        if not ours:
            return updated_node
        if not theirs:
            return updated_node.with_changes(names=_listed(ours))
        return cst.FlattenSentinel(
            [cst.Import(names=_listed(_plain(ours))), updated_node.with_changes(names=_listed(theirs))]
        )

    def _placed(self, statement: cst.Import, module: str, alias: cst.ImportAlias) -> tuple[list[cst.ImportAlias], bool]:
        """Return the modules of ours that are to be imported for one of theirs, and whether that one stays."""
        line = self.line(statement)
        asname = alias.asname.name.value if alias.asname is not None else None  # type: ignore[union-attr]
        local = asname or module.partition(".")[0]
        uses = self.survey.uses.get(local, [])
        found = {use: destinations.moved_path(use) for use in uses}
        reasons = self._reasons_to_keep(local, module, found)
        if not reasons:
            self._moves[local] = True
            self.changes.moved.append(Note(line, module, ""))
            new = destinations.moved_module(module)
            if asname is None and any((path or "").partition(".")[0] == _OURS for path in found.values()):
                pass
            return [alias.with_changes(name=_name(new))], False
        for what, reason in reasons:
            self.changes.kept.append(Note(line, what, reason))
        movable = [path for path in found.values() if path is not None]
        if movable and _OURS not in self.survey.bound:
            self._moves[local] = False
            self.changes.moved.append(Note(line, ", ".join(sorted({use for use, path in found.items() if path})), ""))
            modules = {_module_of(path) for path in movable}
            return [cst.ImportAlias(name=_name(each)) for each in sorted(modules)], True
        return [], True

    def _reasons_to_keep(self, local: str, module: str, found: dict[str, str | None]) -> list[tuple[str, str]]:
        reasons = [
            (use, destinations.why_kept(use.rpartition(".")[2] if "." in use else use))
            for use, path in sorted(found.items())
            if path is None
        ]
        if local in self.survey.bare:
            reasons.append((local, f"the module itself is used as an object in line {self.survey.bare[local]}"))
        if not destinations.is_module(destinations.moved_module(module)):
            reasons.append((module, "modelwright has no such module"))
        if _OURS in self.survey.bound:
            reasons.append((module, "the file has another meaning for the name modelwright"))
        return reasons

    def leave_Attribute(
        self, original_node: cst.Attribute, updated_node: cst.Attribute
    ) -> cst.Attribute | cst.Name | cst.BaseExpression:
        """Rewrite the path to a name of a module that was imported as such."""
        path = dotted(original_node)
        if path is None:
            return updated_node
        local = path.partition(".")[0]
        parent = self.get_metadata(metadata.ParentNodeProvider, original_node)
        if local not in self.survey.uses or (isinstance(parent, cst.Attribute) and parent.value is original_node):
            return updated_node
        root: cst.BaseExpression = original_node
        while isinstance(root, cst.Attribute):
            root = root.value
        full = self.imported_as(root)
        if full is None or isinstance(parent, cst.ImportAlias | cst.ImportFrom):
            return updated_node
        self._pending.append((original_node, full + path.removeprefix(local), local))
        return updated_node

    # --- from a.b import c ----------------------------------------------------------------------------------------

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.FlattenSentinel[cst.BaseSmallStatement]:
        """Move the names of the statement that are here."""
        module = dotted(original_node.module)
        if original_node.relative or module is None or destinations.package_of(module) is None:
            return updated_node
        if isinstance(updated_node.names, cst.ImportStar):
            return self._star(original_node, updated_node, module)
        groups: dict[str | None, list[cst.ImportAlias]] = {}
        for alias in updated_node.names:
            name = str(dotted(alias.name))
            target = destinations.destination(module, name)
            groups.setdefault(target, []).append(alias)
            note = Note(self.line(original_node), f"{module}.{name}", "" if target else destinations.why_kept(name))
            (self.changes.moved if target else self.changes.kept).append(note)
        if set(groups) == {None}:
            return updated_node
        statements = [
            updated_node.with_changes(
                module=updated_node.module if target is None else _name(target), names=_listed(aliases)
            )
            for target, aliases in groups.items()
        ]
        return statements[0] if len(statements) == 1 else cst.FlattenSentinel(statements)
