"""Texts that no process, file or message between processes takes, found wherever they stand in a declaration."""

from collections.abc import Iterator, Mapping

from aks_inference.findings import NOTHING, Finding, Path, Verbatim

_DEEPEST = 64
"""Levels that are looked at; what nests deeper is no argument, and is refused as such."""


def unsendable(value: object, path: Path = ()) -> Iterator[Finding]:
    """One finding per such text. The text itself is not shown: it may be a key, and could not be sent."""
    if isinstance(value, str):
        if "\0" in value:
            yield Finding(path, "holds a NUL character, which ends a text elsewhere", "take it out", NOTHING)
        elif not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            rule = "holds half of a character (a lone surrogate), which is no Unicode text"
            yield Finding(path, rule, "read the file or the name that it comes from as UTF-8", NOTHING)
    elif len(path) < _DEEPEST:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from unsendable(inner, (*path, Verbatim(key)))
        elif isinstance(value, list | tuple):
            for index, inner in enumerate(value):
                yield from unsendable(inner, (*path, index))
