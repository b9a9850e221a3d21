"""A Python function as the JSON schema that chat templates describe tools by: from its type hints and docstring."""

import inspect
import json
import re
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from modelwright.core.errors import InputError

_NAMES: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}
_SECTION = re.compile(r"^(Args|Returns|Raises):\s*$")
_ARGUMENT = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_CHOICES = re.compile(r"\s*\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def get_json_schema(func: Callable[..., Any]) -> dict[str, Any]:
    """Return {"type": "function", "function": {name, description, parameters, return}} of a function.

    Each argument needs a type hint and a line in an `Args:` section of the docstring ("x: The number."); a line that
    ends with (choices: ["a", "b"]) lists the values that are allowed.
    Raises InputError for a function that lacks one of these, and for a type that JSON does not have.
    """
    where = f"get_json_schema: {getattr(func, '__name__', func)!r}"
    text = inspect.getdoc(func)
    if not text:
        raise InputError(f"{where}: expected a docstring, which says what the function does.")
    sections = _sections(text)
    told = _arguments(sections.get("Args", []))
    hints = get_type_hints(func)
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in inspect.signature(func).parameters.items():
        if name not in hints:
            raise InputError(f"{where}: the argument {name!r} has no type hint.")
        if name not in told:
            raise InputError(f"{where}: the argument {name!r} is not described in the docstring's section Args.")
        properties[name] = _schema(f"{where}: {name}", hints[name]) | _description(f"{where}: {name}", told[name])
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
    parameters = {"type": "object", "properties": properties, **({"required": required} if required else {})}
    described: dict[str, Any] = {
        "name": func.__name__,
        "description": "\n".join(sections[""]).strip(),
        "parameters": parameters,
    }
    if "return" in hints:
        described["return"] = _schema(f"{where}: return", hints["return"])
        if "Returns" in sections:
            described["return"]["description"] = "\n".join(sections["Returns"]).strip()
    return {"type": "function", "function": described}


def _sections(text: str) -> dict[str, list[str]]:
    """Return the lines of a docstring by section; those before the first one under ""."""
    sections: dict[str, list[str]] = {"": []}
    current = ""
    for line in text.splitlines():
        if found := _SECTION.match(line):
            current = found[1]
            sections[current] = []
        else:
            sections[current].append(line)
    return sections


def _arguments(lines: list[str]) -> dict[str, str]:
    """Return the description of each argument, its lines joined by spaces."""
    told: dict[str, str] = {}
    name = ""
    for line in map(str.strip, lines):
        if found := _ARGUMENT.match(line):
            name, line = found[1], found[2]
            told[name] = ""
        if name and line:
            told[name] = f"{told[name]} {line}".strip()
    return told


def _description(where: str, text: str) -> dict[str, Any]:
    choices = _CHOICES.search(text)
    if not choices:
        return {"description": text}
    try:
        values = json.loads(choices[1])
    except ValueError as error:
        raise InputError(f"{where}: expected choices as a JSON list, got {choices[1]!r}.") from error
    return {"enum": [each.strip() for each in values], "description": text[: choices.start()]}


def _schema(where: str, hint: Any) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin in (Union, UnionType):
        return _union(where, args)
    if origin is Literal:
        kinds = list(dict.fromkeys(_NAMES[type(value)] for value in args))
        return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": list(args)}
    if origin is list:
        return {"type": "array", "items": _schema(where, args[0])}
    if origin is tuple:
        if len(args) == 1 or ... in args:
            raise InputError(f"{where}: expected a tuple of two types or more (or a list), got {hint}.")
        return {"type": "array", "prefixItems": [_schema(where, each) for each in args]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(where, args[1])}
    if origin is not None:
        raise InputError(f"{where}: {hint} is a type that JSON does not have.")
    if hint in (list, tuple):
        return {"type": "array"}
    return {"type": _NAMES.get(hint, "object")}


def _union(where: str, members: tuple[Any, ...]) -> dict[str, Any]:
    schemas = [_schema(where, each) for each in members if each is not NoneType]
    if len(schemas) == 1:
        schema = schemas[0]
    elif all(isinstance(each.get("type"), str) for each in schemas):
        schema = {"type": sorted(each["type"] for each in schemas)}
    else:
        schema = {"anyOf": schemas}
    return schema | ({"nullable": True} if NoneType in members else {})
