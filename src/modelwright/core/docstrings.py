"""The decorators by which model files of 4.x put docstrings together: they change `__doc__` and nothing else."""

import inspect
from collections.abc import Callable
from typing import Any

Decorator = Callable[[Any], Any]


def add_start_docstrings(*docstr: str) -> Decorator:
    """Return a decorator that puts these texts before the docstring of a function or class."""
    return lambda documented: _with_doc(documented, "".join(docstr) + (documented.__doc__ or ""))


def add_start_docstrings_to_model_forward(*docstr: str) -> Decorator:
    """Return a decorator that puts these texts before the docstring of a model's `forward`."""
    return add_start_docstrings(*docstr)


def add_end_docstrings(*docstr: str) -> Decorator:
    """Return a decorator that puts these texts behind the docstring of a function or class."""
    return lambda documented: _with_doc(documented, (documented.__doc__ or "") + "".join(docstr))


def replace_return_docstrings(output_type: Any = None, config_class: Any = None) -> Decorator:
    """Return a decorator that says behind a docstring what is returned, in place of a bare "Returns:" line."""

    def decorate(documented: Any) -> Any:
        doc = inspect.cleandoc(documented.__doc__ or "")
        kept = [line for line in doc.splitlines() if line.strip() not in ("Returns:", "Return:")]
        return _with_doc(documented, "\n".join([*kept, _returns(output_type, config_class)]))

    return decorate


def add_code_sample_docstrings(
    *docstr: str,
    processor_class: Any = None,
    checkpoint: str | None = None,
    output_type: Any = None,
    config_class: Any = None,
    **details: Any,
) -> Decorator:
    """Return a decorator that puts texts before a docstring, and behind it what is returned and how to load a model.

    details: values that 4.x shows in its sample (such as expected_output), listed as they are.
    """

    def decorate(documented: Any) -> Any:
        owner = documented.__qualname__.partition(".")[0]
        lines = ["".join(docstr) + (documented.__doc__ or ""), _returns(output_type, config_class)]
        if checkpoint is not None:
            lines += ["Example:", f"    model = {owner}.from_pretrained({checkpoint!r})"]
            if processor_class is not None:
                lines.append(f"    inputs = {_name(processor_class)}.from_pretrained({checkpoint!r})(...)")
        lines += [f"    {name}: {value}" for name, value in details.items() if value is not None]
        return _with_doc(documented, "\n".join(lines))

    return decorate


def _returns(output_type: Any, config_class: Any) -> str:
    config = "" if config_class is None else f", as a {_name(config_class)} says"
    return (
        "" if output_type is None else f"Returns:\n    {_name(output_type)}, or a tuple with return_dict=False{config}."
    )


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _with_doc(documented: Any, doc: str) -> Any:
    documented.__doc__ = doc
    return documented
