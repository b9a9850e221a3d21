"""Deciding what becomes of each import of a file and of each attribute path that begins at an imported module.

An import moves if all that is used of it is here. Else it is split: what is here comes from modelwright, the rest
stays. Nothing is changed here: a `Survey` holds the nodes to be replaced, and what they are replaced by.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import libcst as cst
from libcst import metadata

from modelwright.migration import destinations, statements
from modelwright.migration.bindings import Binding, Bindings, Use, dotted, local_name
from modelwright.migration.changes import Note

_OURS = "modelwright"
_TAKEN = "the file gives the name modelwright another meaning"


@dataclass
class _Fate:
    """What becomes of a binding that is made by `import` statements.

    `moves`: its imports are renamed. `stays`: an import of theirs is still needed. `ours`: modules of ours that must be
    imported beside it.
    """

    moves: bool = False
    stays: bool = True
    ours: list[str] = field(default_factory=list)


class Survey(cst.CSTVisitor):
    """Reads a file; visit its module with it, then look at `replacements`, `moved` and `kept`.

    `replacements` has a list of statements for an import statement, an expression for an expression.
    """

    def __init__(self, wrapper: metadata.MetadataWrapper, *, is_package: bool = False) -> None:
        super().__init__()
        self.bindings = Bindings(wrapper)
        self.statements: dict[cst.CSTNode, Sequence[cst.BaseSmallStatement]] = {}
        self.expressions: dict[cst.CSTNode, cst.BaseExpression] = {}
        self.moved: list[Note] = []
        self.kept: list[Note] = []
        self._is_package = is_package
        self._fates: dict[int, _Fate] = {}

    # --- import a.b as c ----------------------------------------------------------------------------------------------

    def visit_Import(self, node: cst.Import) -> None:
        """Decide on `import transformers` and its like."""
        ours: list[str] = []
        aliases: list[cst.ImportAlias] = []
        for alias in node.names:
            binding = self.bindings.of_alias.get(alias)
            if binding is None:
                aliases.append(alias)
                continue
            fate = self._fate_of(binding)
            ours += [module for module in fate.ours if module not in ours]
            if fate.moves:
                module = destinations.moved_module(dotted(alias.name) or "")
                aliases.append(alias.with_changes(name=statements.name_node(module)))
            elif fate.stays:
                aliases.append(alias)
        renamed = [alias for alias in aliases if alias not in node.names]
        if ours or renamed:
            last = [statements.import_with(node, aliases)] if aliases else []
            self.statements[node] = [*map(statements.import_of, ours), *last]

    def _fate_of(self, binding: Binding) -> _Fate:
        if id(binding) not in self._fates:
            self._fates[id(binding)] = self._decide(binding)
        return self._fates[id(binding)]

    def _decide(self, binding: Binding) -> _Fate:
        """Decide on a binding and replace the paths that begin at it."""
        line = min(self.bindings.line(alias) for alias in binding.imports)
        obstacle = self._obstacle(binding)
        if obstacle:
            self.kept.append(Note(line, binding.local, obstacle))
            return _Fate()
        places, kept = self._places(binding)
        modules = {dotted(alias.name) or "" for alias in binding.imports}
        for module in sorted(modules):
            if not destinations.is_module(destinations.moved_module(module)):
                kept.append(Note(line, module, "modelwright has no such module"))
        if binding.bare:
            kept.append(Note(binding.bare[0], binding.local, "the module itself is used as an object"))
        base = destinations.moved_module(binding.module)
        is_aliased = any(alias.asname for alias in binding.imports)
        fits = not is_aliased or all(f"{place.module}.".startswith(f"{base}.") for _, place in places)
        moves = not kept and fits
        needed = {place.module for _, place in places if destinations.needs_import(place.module)}
        if not moves and places:
            needed = needed or {_OURS}
        if moves:
            needed -= {destinations.moved_module(module) for module in modules}
        if self.bindings.ours_is_taken and (needed or (moves and not is_aliased)):
            self.kept.append(Note(line, binding.local, _TAKEN))
            return _Fate()
        self.kept += kept
        for use, place in places:
            prefix = place.module if not (moves and is_aliased) else binding.local + place.module.removeprefix(base)
            self._rewrite(use, place, prefix)
            self.moved.append(Note(use.line, binding.module + "".join(f".{part}" for part in use.path), place.module))
        if moves and not places:
            self.moved.append(Note(line, binding.module, base))
        wanted = [each for each in sorted(needed) if not any(other.startswith(each + ".") for other in needed)]
        return _Fate(moves=moves, stays=bool(kept), ours=wanted)

    def _obstacle(self, binding: Binding) -> str | None:
        for use in binding.uses:
            place = destinations.place_of(binding.module, use.path)
            if not use.is_read and isinstance(place, destinations.Place) and len(place.rest) < 2:
                return f"line {use.line} assigns to {'.'.join((binding.local, *use.path))}"
        return binding.obstacle

    def _places(self, binding: Binding) -> tuple[list[tuple[Use, destinations.Place]], list[Note]]:
        """Return the uses that lead to a name here, and notes about the others."""
        places, kept = [], []
        for use in binding.uses:
            place = destinations.place_of(binding.module, use.path)
            what = ".".join((binding.module, *use.path))
            if isinstance(place, str):
                kept.append(Note(use.line, what, place))
            elif not place.rest:
                kept.append(Note(use.line, what, "the module itself is used as an object"))
            else:
                places.append((use, place))
        return places, kept

    def _rewrite(self, use: Use, place: destinations.Place, prefix: str) -> None:
        """Replace the part of a path that names a module by `prefix`; what is the same at its end keeps its layout."""
        parts = prefix.split(".")
        at = len(use.path) - len(place.rest)
        while at and len(parts) > 1 and use.path[at - 1] == parts[-1]:
            at, parts = at - 1, parts[:-1]
        old = use.nodes[at]
        if dotted(old) != ".".join(parts):
            new = statements.name_node(".".join(parts))
            self.expressions[old] = new.with_changes(lpar=old.lpar, rpar=old.rpar)

    # --- from a.b import c --------------------------------------------------------------------------------------------

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        """Decide on `from transformers import ...`."""
        module = dotted(node.module)
        if node.relative or module is None or destinations.package_of(module) is None:
            return
        if isinstance(node.names, cst.ImportStar):
            self._decide_star(node, module)
            return
        line = self.bindings.line(node)
        groups: dict[str | None, list[cst.ImportAlias]] = {}
        for alias in node.names:
            name = dotted(alias.name) or ""
            target = destinations.destination(module, name)
            notes = self._notes_of_module(alias) if target else [Note(line, name, destinations.why_kept(name))]
            if notes:
                target = None
                self.kept += [Note(note.line, f"{module}.{name}", note.reason) for note in notes]
            else:
                self.moved.append(Note(line, f"{module}.{name}", str(target)))
            groups.setdefault(target, []).append(alias)
        if set(groups) != {None}:
            self.statements[node] = [
                statements.from_import_part(node, aliases, target, is_first=index == 0)
                for index, (target, aliases) in enumerate(groups.items())
            ]

    def _notes_of_module(self, alias: cst.ImportAlias) -> list[Note]:
        """Return why an alias of a from-import, if it is a module, has to stay."""
        binding = self.bindings.of_alias.get(alias)
        if binding is None:
            return []
        ours, line = destinations.moved_module(binding.module), self.bindings.line(alias)
        obstacle = self._obstacle(binding)
        if obstacle:
            return [Note(line, local_name(alias), obstacle)]
        if destinations.is_bare_package(ours):
            return [Note(line, binding.local, f"{ours} is a folder; import the names from the modules in it")]
        places, kept = self._places(binding)
        if binding.bare:
            kept.append(Note(binding.bare[0], binding.local, "the module itself is used as an object"))
        for use, place in places:
            if not f"{place.module}.".startswith(f"{ours}."):
                kept.append(Note(use.line, ".".join(use.path), f"here it is in {place.module}; import it from there"))
            elif place.module != ours and not destinations.serves(ours, place.module.removeprefix(ours + ".")):
                kept.append(Note(use.line, ".".join(use.path), f"{place.module} must be imported by its path here"))
        return kept

    def _decide_star(self, node: cst.ImportFrom, module: str) -> None:
        """Replace a star by the names that the file uses and does not define, as far as they are here."""
        line, what = self.bindings.line(node), f"{module}.*"
        places = {name: destinations.destination(module, name) for name in sorted(self.bindings.undefined)}
        groups: dict[str, list[str]] = {}
        for name, target in places.items():
            if target:
                groups.setdefault(target, []).append(name)
                self.moved.append(Note(line, f"{module}.{name}", target))
        left = [name for name, target in places.items() if target is None]
        if self._is_package:
            self.kept.append(Note(line, what, "a package hands on names that other files use"))
        elif left:
            self.kept.append(Note(line, what, f"names that it may define: {', '.join(left)}"))
        elif not groups:
            self.kept.append(Note(line, what, "no name of it is used in this file; others may use them"))
        ours = [statements.from_import_of(target, names) for target, names in groups.items()]
        if ours:
            self.statements[node] = [node, *ours] if left or self._is_package else ours
