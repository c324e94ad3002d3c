"""Work of several kinds at once; asking before it is known whether the answer is needed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


async def together(one: Coroutine[Any, Any, S], other: Coroutine[Any, Any, T]) -> tuple[S, T]:
    """Both at once; an error of one ends the other, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(one), group.create_task(other)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return first.result(), second.result()


@contextlib.asynccontextmanager
async def ahead(question: Coroutine[Any, Any, T]) -> AsyncIterator["asyncio.Task[T]"]:
    """A question that is under way while other things are done. Where nobody waited for its answer it is given up."""
    task = asyncio.create_task(question)
    try:
        yield task
    finally:
        task.cancel()
        # It is waited for without taking a cancellation of our own for its.
        await asyncio.gather(task, return_exceptions=True)
