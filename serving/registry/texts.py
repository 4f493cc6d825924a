"""Texts that people write: reasons and names. Terminals show them, so none may steer a terminal."""

from __future__ import annotations

import re

#: All of C0 and C1 but tab and line break; a carriage return writes over what stands in its line.
#: Surrogates are what Python makes of an argument's bytes that are not UTF-8: no file holds them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def control_in(*texts: str) -> str | None:
    """The first control character or surrogate in texts, as Python writes it, such as `\\x1b`.

    None without any.
    """
    found = next(filter(None, map(_CONTROL.search, texts)), None)
    return None if found is None else repr(found[0])[1:-1]


def unix_lines(text: str) -> str:
    """A text with `\\n` at the ends of its lines where Windows and forms write `\\r\\n`."""
    return text.replace("\r\n", "\n")


def written_out(text: str) -> str:
    """A text with such characters as Python writes them; PostgreSQL's NUL is left."""
    return _CONTROL.sub(lambda m: m[0] if m[0] == "\0" else repr(m[0])[1:-1], text)


def one_line(text: str) -> str:
    """A text with all that is not printed, line breaks too, as Python writes it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
