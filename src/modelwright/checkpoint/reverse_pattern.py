"""The way back of a simple substitution: pattern and replacement change places."""

import re

_SPECIAL = set(".*+?[]{}|()")


def reverse_pattern(pattern: str, replacement: str) -> tuple[str, str] | None:
    """Return the (pattern, replacement) that undoes `re.sub(pattern, replacement, ...)`, or None if it is not simple.

    Simple is: literal text, `^` first, `$` last, capturing groups without groups inside, each used once.
    """
    start, pattern = pattern.startswith("^"), pattern.removeprefix("^")
    end = pattern.endswith("$") and not pattern.endswith("\\$")
    pieces = _split(pattern[:-1] if end else pattern)
    used = re.split(r"\\(\d)|\\g<(\d+)>", replacement)
    if pieces is None:
        return None
    groups = [text for is_group, text in pieces if is_group]
    order: list[int] = []
    back = ""
    for literal, short, long in zip(used[::3], [*used[1::3], None], [*used[2::3], None], strict=True):
        if "\\" in literal.replace("\\\\", ""):
            return None
        back += re.escape(literal.replace("\\\\", "\\"))
        number = int(short or long or 0)
        if number:
            if number > len(groups) or number in order:
                return None
            order.append(number)
            back += f"({groups[number - 1]})"
    if len(order) != len(groups):
        return None
    forth, number = "", 0
    for is_group, text in pieces:
        number += is_group
        forth += f"\\g<{order.index(number) + 1}>" if is_group else text.replace("\\", r"\\")
    return ("^" if start else "") + back + ("$" if end else ""), forth


def _split(pattern: str) -> list[tuple[bool, str]] | None:
    """Return the pieces (is it a group, its text) of a simple pattern; literal text unescaped; None if not simple."""
    pieces: list[tuple[bool, str]] = []
    literal, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            if position + 1 == len(pattern) or pattern[position + 1].isalnum():
                return None  # a class such as \d outside a group
            literal += pattern[position + 1]
            position += 2
        elif char == "(":
            close = _closing(pattern, position)
            text = pattern[position + 1 : close] if close else ""
            if close is None or text.startswith("?") or pattern[close + 1 : close + 2] in set("*+?{"):
                return None
            pieces += [(False, literal), (True, text)]
            literal, position = "", close + 1
        elif char in _SPECIAL - {"."} or char in "^$":
            return None
        elif char == ".":
            # Written for a dot by nearly everybody; what it matched is lost, so only the dot can come back.
            literal += "."
            position += 1
        else:
            literal += char
            position += 1
    return [*pieces, (False, literal)]


def _closing(pattern: str, start: int) -> int | None:
    in_class, position = False, start + 1
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            position += 1
        elif char == "[":
            in_class = True
        elif char == "]":
            in_class = False
        elif char == "(" and not in_class:
            return None
        elif char == ")" and not in_class:
            return position
        position += 1
    return None
