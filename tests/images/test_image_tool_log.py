"""The log of a build tool, whatever it writes: lines without an end, lines of megabytes, bytes that are no text."""

import asyncio
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference_runtime.api.output import LONGEST_LINE, lines_of
from aks_inference_runtime.images.build.run import TAIL_LINES, run_tool
from aks_inference_runtime.images.errors import BuildFailed

LONG = 3_000_000
WRITES = f"""
import sys
out = sys.stdout.buffer
out.write(b"begins\\n" + b"x" * {LONG} + b"\\n" + b"caf\\xc3\\xa9 \\xff \\r\\n\\n")
out.write(b"{{" * {LONG})
sys.exit(int(sys.argv[1]))
"""


async def test_lines_of_megabytes_neither_hang_nor_end_a_build() -> None:
    said: list[str] = []
    async with asyncio.timeout(20):
        await run_tool([sys.executable, "-c", WRITES, "0"], said.append, what="build")
    first, long, odd, empty, last = said
    assert (first, odd, empty) == ("begins", "café \ufffd", "")
    assert long == f"{'x' * LONGEST_LINE}… (a line of 3,000,000 bytes)"
    assert last == f"{'{' * LONGEST_LINE}… (a line of 3,000,000 bytes)"


async def test_a_failure_shows_the_end_and_its_length_is_bounded() -> None:
    with pytest.raises(BuildFailed, match=r"build failed with code 3; the end of its log:\nbegins") as caught:
        await run_tool([sys.executable, "-c", WRITES, "3"], lambda _line: None, what="build")
    assert str(caught.value).endswith("… (a line of 3,000,000 bytes)")
    assert len(str(caught.value)) < TAIL_LINES * (LONGEST_LINE + 100)


@given(st.lists(st.binary(max_size=40)), st.binary(max_size=40), st.integers(1, 64))
@settings(deadline=None)
def test_whatever_the_pieces(lines: list[bytes], rest: bytes, size: int) -> None:
    """As whole lines would be read."""
    content = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines) + rest

    async def read() -> list[str]:
        stream = asyncio.StreamReader()
        found = []

        async def feed() -> None:
            for start in range(0, len(content), size):
                stream.feed_data(content[start : start + size])
                await asyncio.sleep(0)
            stream.feed_eof()

        feeding = asyncio.create_task(feed())
        async for line in lines_of(stream):
            found.append(line)
        await feeding
        return found

    *whole, last = content.split(b"\n")
    expected = [*whole, *([last] if last else [])]
    assert asyncio.run(read()) == [line.decode("utf-8", "replace").rstrip() for line in expected]
