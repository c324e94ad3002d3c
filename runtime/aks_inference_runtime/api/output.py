"""What a program writes, line by line, whatever it writes; and names for people."""

import asyncio
from collections.abc import AsyncIterator

LONGEST_LINE = 16 * 1024
"""Bytes. Nobody reads more of one, and the engine that shows it takes 4 MB at a time."""
_PIECE = 64 * 1024


def printable(name: str) -> str:
    """A name as it is, or quoted where a line break would make it two, and other signs would reach a terminal."""
    return name if name.isprintable() else repr(name)


async def lines_of(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Each line without its end. Of one that is longer than `LONGEST_LINE` the beginning, and how long it was: a reader
    that gave up on it would end the program, and one that kept it would fill the memory."""
    held, size = b"", 0
    while piece := await stream.read(_PIECE):
        *ended, rest = piece.split(b"\n")
        for part in ended:
            yield _text(held + part, size + len(part))
            held, size = b"", 0
        held, size = (held + rest)[:LONGEST_LINE], size + len(rest)
    if size:
        yield _text(held, size)


def _text(held: bytes, size: int) -> str:
    text = held[:LONGEST_LINE].decode("utf-8", "replace").rstrip()
    return f"{text}… (a line of {size:,} bytes)" if size > LONGEST_LINE else text
