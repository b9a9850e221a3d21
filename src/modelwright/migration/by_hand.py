"""What a migration leaves to the user: calls with arguments that we refuse, strings, and models given to a trainer."""

import re

import libcst as cst
from libcst import metadata

from modelwright.migration import advice, destinations
from modelwright.migration.changes import Note
from modelwright.migration.survey import Survey

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_TAKES_MODULES = frozenset({"import_module", "__import__", "find_spec", "importorskip"})


class ByHand(cst.CSTVisitor):
    """Reads a file after its survey and notes what is to be changed by hand."""

    METADATA_DEPENDENCIES = (metadata.QualifiedNameProvider,)

    def __init__(self, survey: Survey) -> None:
        super().__init__()
        self._line = survey.bindings.line
        self._moved = {note.what.split(".")[-1] for note in survey.moved}
        self._moved |= {part for note in survey.moved for part in note.what.split(".")}
        self._has_models = any(map(advice.is_model, self._moved))
        self.notes = [
            Note(note.line, note.what, advice.DIFFERENCES[part])
            for note in survey.moved
            for part in note.what.split(".")
            if part in advice.DIFFERENCES
        ]
        for node in survey.bindings.annotations:
            if isinstance(node, cst.SimpleString):
                self._note(node, node.value, "the annotation is a string: change it if its import has moved")
        self._seen = set(survey.bindings.annotations)

    def _note(self, node: cst.CSTNode, what: str, reason: str) -> None:
        self.notes.append(Note(self._line(node), what, reason))

    def _full_name(self, node: cst.CSTNode) -> str | None:
        """Return what an expression names, if that was imported from a package that is moved from."""
        found = self.get_metadata(metadata.QualifiedNameProvider, node, set())
        names = {each.name for each in found if each.source is metadata.QualifiedNameSource.IMPORT}
        name = names.pop() if len(names) == 1 else ""
        return name if destinations.package_of(name) else None

    def visit_Call(self, node: cst.Call) -> None:
        """Look at what is called, and with which keywords."""
        if isinstance(node.func, cst.Name | cst.Attribute):
            called = node.func.value if isinstance(node.func, cst.Name) else node.func.attr.value
            first = node.args[0].value if node.args else None
            if called in _TAKES_MODULES and isinstance(first, cst.SimpleString):
                self._note_string(first)
        full = self._full_name(node.func)
        if full is None:
            return
        *owner, last = full.split(".")
        if last.startswith("from_") and self._moved.intersection(owner[1:]):
            for argument in node.args:
                keyword = argument.keyword.value if argument.keyword is not None else ""
                harmless = advice.REFUSED_ARGUMENTS.get(keyword)
                if harmless and not _is_constant(argument.value, harmless.values):
                    self._note(argument, f"{keyword}=", harmless.reason)
        if last in advice.RUNS_MODELS and self._has_models:
            self._note(node, last, advice.RUNS_MODELS[last])

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        """Look at subclasses of what runs models."""
        for base in node.bases:
            last = (self._full_name(base.value) or "").split(".")[-1]
            if last in advice.RUNS_MODELS and self._has_models:
                self._note(node, f"{node.name.value}({last})", advice.RUNS_MODELS[last])

    def visit_Assign(self, node: cst.Assign) -> None:
        """Look for parts of imported classes that are replaced."""
        for target in node.targets:
            full = self._full_name(target.target) if isinstance(target.target, cst.Attribute) else None
            if full and self._moved.intersection(full.split(".")[1:-1]):
                self._note(node, full, "replaces a part of a class: see whether the class here uses it in the same way")

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        """Note a string that names something in a module, such as one of mock.patch."""
        if "." in node.value:
            self._note_string(node)

    def _note_string(self, node: cst.SimpleString) -> None:
        value = node.raw_value
        if node not in self._seen and destinations.package_of(value) and _MODULE.fullmatch(value):
            self._seen.add(node)
            self._note(node, node.value, "the string names a module: change it if it is imported or patched by it")


def _is_constant(node: cst.BaseExpression, values: tuple[object, ...]) -> bool:
    return isinstance(node, cst.Name) and node.value in {str(value) for value in values}
