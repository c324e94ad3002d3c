"""Asking before it is known whether the answer is needed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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
