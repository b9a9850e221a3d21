"""Import statements built from parts of others, with the comments and the layout that those had."""

from collections.abc import Sequence

import libcst as cst


def name_node(dotted: str) -> cst.Name | cst.Attribute:
    """Return the expression for "a.b.c"."""
    first, *rest = dotted.split(".")
    node: cst.Name | cst.Attribute = cst.Name(first)
    for part in rest:
        node = cst.Attribute(node, cst.Name(part))
    return node


def import_of(module: str) -> cst.Import:
    """Return `import module`."""
    return cst.Import([cst.ImportAlias(name_node(module))])


def import_with(statement: cst.Import, aliases: Sequence[cst.ImportAlias]) -> cst.Import:
    """Return `import` statement with other aliases."""
    return statement.with_changes(names=[*map(_with_comma, aliases[:-1]), _without_comma(aliases[-1])])


def from_import_of(module: str, names: Sequence[str]) -> cst.ImportFrom:
    """Return `from module import names`, in parentheses if that would be a long line."""
    aliases = [cst.ImportAlias(cst.Name(name)) for name in names]
    if len(f"from {module} import {', '.join(names)}") <= 88:
        return cst.ImportFrom(name_node(module), aliases)
    inner = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace("    "))
    last = cst.ParenthesizedWhitespace(indent=True)
    listed = [alias.with_changes(comma=cst.Comma(whitespace_after=inner)) for alias in aliases[:-1]]
    return cst.ImportFrom(
        name_node(module),
        [*listed, aliases[-1].with_changes(comma=cst.Comma())],
        lpar=cst.LeftParen(whitespace_after=inner),
        rpar=cst.RightParen(whitespace_before=last),
    )


def from_import_part(
    statement: cst.ImportFrom, aliases: Sequence[cst.ImportAlias], module: str | None, *, is_first: bool
) -> cst.ImportFrom:
    """Return a from-import of some aliases of another one, each with its comments; `module` None keeps the module.

    A comment behind the opening parenthesis goes with the first part (`is_first`).
    """
    assert not isinstance(statement.names, cst.ImportStar)
    old_last, new_last = statement.names[-1], aliases[-1]
    changes: dict[str, object] = {} if module is None else {"module": name_node(module)}
    if statement.lpar is None or statement.rpar is None:
        return statement.with_changes(names=[*map(_with_comma, aliases[:-1]), _without_comma(new_last)], **changes)
    lpar, rpar = statement.lpar, statement.rpar
    if not is_first and isinstance(lpar.whitespace_after, cst.ParenthesizedWhitespace):
        first_line = cst.TrailingWhitespace(newline=lpar.whitespace_after.first_line.newline)
        lpar = lpar.with_changes(
            whitespace_after=lpar.whitespace_after.with_changes(first_line=first_line, empty_lines=[])
        )
    if new_last is not old_last:
        last_comma = old_last.comma
        end = last_comma.whitespace_after if isinstance(last_comma, cst.Comma) else rpar.whitespace_before
        new_last, rpar = _closed(new_last, rpar, end)
    return statement.with_changes(names=[*aliases[:-1], new_last], lpar=lpar, rpar=rpar, **changes)


def _closed(
    alias: cst.ImportAlias, rpar: cst.RightParen, end: cst.BaseParenthesizableWhitespace
) -> tuple[cst.ImportAlias, cst.RightParen]:
    """Return an alias that others followed, and the parenthesis, so that the alias can be the last one.

    `end` is what stood before the parenthesis; its indentation is used.
    """
    if not isinstance(alias.comma, cst.Comma) or not isinstance(
        after := alias.comma.whitespace_after, cst.ParenthesizedWhitespace
    ):
        return _without_comma(alias), rpar.with_changes(whitespace_before=_plain(rpar.whitespace_before))
    if isinstance(end, cst.ParenthesizedWhitespace):
        after = after.with_changes(indent=end.indent, last_line=end.last_line)
    comma = alias.comma.with_changes(whitespace_after=cst.SimpleWhitespace(""))
    return alias.with_changes(comma=comma), rpar.with_changes(whitespace_before=after)


def _plain(space: cst.BaseParenthesizableWhitespace) -> cst.BaseParenthesizableWhitespace:
    """Return whitespace without its comments."""
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return space
    first_line = cst.TrailingWhitespace(newline=space.first_line.newline)
    return space.with_changes(first_line=first_line, empty_lines=[])


def _with_comma(alias: cst.ImportAlias) -> cst.ImportAlias:
    if isinstance(alias.comma, cst.Comma):
        return alias
    return alias.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))


def _without_comma(alias: cst.ImportAlias) -> cst.ImportAlias:
    return alias.with_changes(comma=cst.MaybeSentinel.DEFAULT)
