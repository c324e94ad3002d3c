"""Answers as vLLM (OpenAI's completions) and Triton (V2 over HTTP) document them, for what cannot run where tests do.

python protocol_replica.py --path SOCKET      prints a port, as stub_replica.py does: 0
"""

import argparse
import asyncio
import json

from aiohttp import web

TOKENS = ("Once", " upon", " a", " time")
LOADING_LOOKS = 3
"""So often it is asked after its health before it says that it can score: it loads its model."""
BINARY = "Inference-Header-Content-Length"
"""Of Triton's binary tensors: how much of a body is JSON."""


class Server:
    """Both of them; their paths do not overlap."""

    def __init__(self) -> None:
        self.looks = 0
        self.go_on = asyncio.Event()

    async def health(self, request: web.Request) -> web.Response:
        """Nothing in the body, as both have it."""
        self.looks += 1
        return web.Response(status=200 if self.looks > LOADING_LOOKS else 503)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events end with `data: [DONE]`; the second one is sent when the client has told of the first."""
        asked = await request.json()
        if not asked.get("prompt"):
            error = {"message": "prompt is required", "type": "BadRequestError", "code": 400}
            return web.json_response({"error": error}, status=400)
        if not asked.get("stream"):
            return web.json_response({"object": "text_completion", "choices": [{"index": 0, "text": "".join(TOKENS)}]})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await answer.prepare(request)
        for number, token in enumerate(TOKENS):
            if number:
                await self.go_on.wait()
            event = {"object": "text_completion", "choices": [{"index": 0, "text": token}]}
            await answer.write(f"data: {json.dumps(event)}\n\n".encode())
        await answer.write(b"data: [DONE]\n\n")
        await answer.write_eof()
        return answer

    async def release(self, request: web.Request) -> web.Response:
        """Beside the gate: the client has the first event."""
        self.go_on.set()
        return web.Response()

    async def infer(self, request: web.Request) -> web.Response:
        """Binary tensors are answered as such."""
        body = await request.read()
        length = int(request.headers[BINARY])
        asked = json.loads(body[:length])
        sent = body[length:]
        size = asked["inputs"][0]["parameters"]["binary_data_size"]
        if size != len(sent):
            return web.json_response({"error": f"expected {size} bytes, got {len(sent)}"}, status=400)
        output = {"name": "doubled", "datatype": "UINT8", "shape": [1, size], "parameters": {"binary_data_size": size}}
        head = json.dumps(
            {"model_name": request.match_info["model"], "model_version": "1", "outputs": [output]}
        ).encode()
        doubled = bytes(2 * value % 256 for value in sent)
        return web.Response(
            body=head + doubled, headers={BINARY: str(len(head)), "Content-Type": "application/octet-stream"}
        )


async def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", required=True)
    parser.add_argument("--sleep-ms", type=float, default=0)
    arguments = parser.parse_args()
    server = Server()
    app = web.Application()
    app.router.add_get("/health", server.health)
    app.router.add_get("/v2/health/ready", server.health)
    app.router.add_post("/v1/completions", server.complete)
    app.router.add_post("/_release", server.release)
    app.router.add_post("/v2/models/{model}/infer", server.infer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, arguments.path).start()
    print(0, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
