"""On generated files: the output parses, a second run changes nothing, and only imports and module paths differ."""

import ast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelwright.migration.rewrite import rewrite

_NAMES = ("BertModel", "BertConfig", "Trainer", "AutoModel", "NotThere", "PreTrainedModel", "logging", "models")
_MODULES = ("transformers", "transformers.models.bert", "transformers.modeling_utils", "transformers.nowhere", "os")
_ROOTS = ("transformers", "tf", "pytorch_quantization", "modelwright")

names = st.sampled_from(_NAMES)
aliases = st.one_of(names, st.builds("{} as {}".format, names, st.sampled_from(["A", "b", "logging"])))


@st.composite
def from_imports(draw: st.DrawFn) -> str:
    module, listed = draw(st.sampled_from(_MODULES[:4])), draw(st.lists(aliases, min_size=1, max_size=4))
    layout = draw(st.integers(0, 4))
    if layout == 0:
        return f"from {module} import ({', '.join(listed)},)"
    if layout == 1:
        lines = "".join(f"    {each},{'  # note' * draw(st.integers(0, 1))}\n" for each in listed)
        return f"from {module} import (  # first\n{lines})"
    if layout == 2:
        return f"from {module} import " + ", \\\n    ".join(listed)
    if layout == 3:
        return f"from {module} import *"
    return f"from {module} import {', '.join(listed)}"


@st.composite
def imports(draw: st.DrawFn) -> str:
    module = st.sampled_from((*_MODULES, "pytorch_quantization", "pytorch_quantization.nn"))
    listed = draw(st.lists(st.one_of(module, module.map("{} as tf".format)), min_size=1, max_size=3))
    return f"import {', '.join(listed)}"


@st.composite
def expressions(draw: st.DrawFn) -> str:
    path = ".".join(draw(st.lists(st.sampled_from((*_NAMES, "nn", "QuantLinear", "bert")), max_size=3)))
    root = draw(st.sampled_from((*_ROOTS, *_NAMES)))
    chain = f"{root}.{path}" if path else root
    form = draw(st.sampled_from(["{}", "x = {}", "f({}, y={})", "del {}", "{} = 1", "print('{}')", "({}\n  .z)"]))
    return form.format(chain, chain)


others = st.sampled_from(["pass", "# a comment", "x = '''a\nb'''"])
statements = st.one_of(from_imports(), imports(), expressions(), others)


@st.composite
def blocks(draw: st.DrawFn) -> str:
    heads = ("def f(tf=1):", "if x:", "class C:", "try:", "for modelwright in y:", "if a: pass\nelse:")
    head = draw(st.sampled_from(heads))
    indent = draw(st.sampled_from(["  ", "    ", "\t"]))
    body = [line for line in draw(st.lists(statements, max_size=3)) if not line.startswith("from") or "*" not in line]
    text = "".join(f"{line}\n" for line in [*body, "pass"]).replace("'''a\nb'''", "1")
    lines = "".join(f"{indent}{line}\n" for line in text.splitlines())
    return f"{head}\n{lines}" + ("finally:\n pass\n" if head == "try:" else "")


files = st.lists(st.one_of(statements, blocks()), max_size=7).map(lambda parts: "".join(f"{part}\n" for part in parts))


class _Rest(ast.NodeTransformer):
    """Takes imports away, and of a path from a root its modules: only the last two parts are kept."""

    def visit_Import(self, node: ast.Import) -> None:
        return None

    visit_ImportFrom = visit_Import

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        path = ast.unparse(node).split(".")
        if path[0] not in _ROOTS or not all(part.isidentifier() for part in path):
            return self.generic_visit(node)
        return ast.Name(f"root.{path[-1]}", node.ctx)


def rest(text: str) -> str:
    return ast.dump(_Rest().visit(ast.parse(text)))


def is_python(text: str) -> bool:
    try:
        compile(text, "<text>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(files.filter(is_python))
def test_only_imports_and_module_paths_differ(text: str) -> None:
    changes = rewrite(text)
    assert is_python(changes.after), changes.after
    assert rest(changes.after) == rest(text)
    assert rewrite(changes.after).after == changes.after
    assert changes.after.count("# note") == text.count("# note"), "a comment was lost"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files.filter(is_python))
def test_line_ends_stay(text: str) -> None:
    changes = rewrite(text.replace("\n", "\r\n"))
    assert "\n" not in changes.after.replace("\r\n", "")
    assert changes.after.replace("\r\n", "\n") == rewrite(text).after
