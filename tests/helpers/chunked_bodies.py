"""A body of unknown length."""

import asyncio


async def chunked(host: str, port: int, endpoint: str, key: str, megabytes: int) -> bytes:
    """Sends chunks until an answer comes."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST /api/v1/service/{endpoint}/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
    piece = b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n"
    answer = asyncio.ensure_future(reader.read(4096))
    try:
        for _ in range(megabytes):
            writer.write(piece)
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.wait([drained, answer], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                drained.cancel()
                break
        async with asyncio.timeout(20):
            return await answer
    finally:
        writer.transport.abort()
