"""Rewriting one file: its imports from transformers and pytorch_quantization, and the paths that begin at a module.

Nothing else is touched: comments and layout stay. A file that was rewritten once is not changed again.
"""

from collections.abc import Sequence

import libcst as cst
from libcst import metadata

from modelwright.core.errors import InputError
from modelwright.migration.by_hand import ByHand
from modelwright.migration.changes import Changes
from modelwright.migration.destinations import PACKAGES
from modelwright.migration.survey import Survey


def rewrite(source: str, path: str = "<text>") -> Changes:
    """Return what becomes of a Python text; raise InputError, naming `path` and the line, if it cannot be parsed."""
    try:
        return _rewritten(source, path)
    except RecursionError:
        raise InputError(f"{path}: an expression is nested too deeply for the parser (libcst); split it") from None


def _rewritten(source: str, path: str) -> Changes:
    module = _parsed(source, path)
    if not any(package in source for package in PACKAGES):
        return Changes(source, source)
    wrapper = metadata.MetadataWrapper(module, unsafe_skip_copy=True)
    survey = Survey(wrapper, is_package=path.endswith("__init__.py"))
    wrapper.module.visit(survey)
    after = wrapper.module.visit(_Rewriter(survey)).code if survey.statements or survey.expressions else source
    reader = ByHand(survey)
    wrapper.visit(reader)
    notes = [
        sorted(set(each), key=lambda note: (note.line, note.what)) for each in (survey.moved, survey.kept, reader.notes)
    ]
    return Changes(source, after, *notes)


def _parsed(source: str, path: str) -> cst.Module:
    try:
        module = cst.parse_module(source)
    except cst.ParserSyntaxError as error:
        where = f"{path}, line {error.raw_line}"
        raise InputError(f"{where}: this is no Python 3 that can be parsed: {error.message.splitlines()[0]}") from None
    except ValueError as error:
        raise InputError(f"{path}: this is no Python 3 that can be parsed: {error}") from None
    if module.code != source:
        raise InputError(f"{path}: the parser (libcst) cannot give this text back as it is, so it is not touched")
    return module


class _Rewriter(cst.CSTTransformer):
    """Puts the replacements of a survey in place."""

    def __init__(self, survey: Survey) -> None:
        super().__init__()
        self._statements, self._expressions = survey.statements, survey.expressions

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        """Replace the name of a module."""
        return self._expressions.get(original_node, updated_node)

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        """Replace the path of a module."""
        return self._expressions.get(original_node, updated_node)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.BaseStatement]:
        """Replace the imports of a line; one that becomes several has a line for each."""
        body = self._body(original_node.body, updated_node.body)
        if len(original_node.body) > 1 or len(body) == 1:
            return updated_node.with_changes(body=body)
        plain = cst.TrailingWhitespace(newline=updated_node.trailing_whitespace.newline)
        lines = [cst.SimpleStatementLine([each], trailing_whitespace=plain) for each in body]
        lines[0] = lines[0].with_changes(leading_lines=updated_node.leading_lines)
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.FlattenSentinel(lines)

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.SimpleStatementSuite:
        """Replace the imports behind a colon."""
        return updated_node.with_changes(body=self._body(original_node.body, updated_node.body))

    def _body(
        self, originals: Sequence[cst.BaseSmallStatement], updated: Sequence[cst.BaseSmallStatement]
    ) -> list[cst.BaseSmallStatement]:
        body: list[cst.BaseSmallStatement] = []
        for original, statement in zip(originals, updated, strict=True):
            new = [*self._statements.get(original, [statement])]
            # What stands between this statement and the next one stays behind the last of the new ones.
            body += [each.with_changes(semicolon=cst.MaybeSentinel.DEFAULT) for each in new[:-1]]
            body.append(new[-1].with_changes(semicolon=getattr(statement, "semicolon", cst.MaybeSentinel.DEFAULT)))
        return body
