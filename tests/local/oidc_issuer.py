"""A real issuer of tokens as a process: discovery, keys that rotate, client credentials. Prints its address.

`POST /rotate`: a new signing key, the old one is still published.
"""

import asyncio
import base64
import json
import sys
import time
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

CLIENT, SECRET = "client-1", "s3cr3t/with+signs"
AUDIENCE = "api://scoring"


class Issuer:
    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.url = ""
        self.asked_for_keys = 0
        self.rotate()

    def rotate(self) -> None:
        self.keys[f"key-{len(self.keys) + 1}"] = ec.generate_private_key(ec.SECP256R1())

    def token(self, audience: str, seconds: float) -> str:
        kid, key = list(self.keys.items())[-1]
        now = time.time()
        claims = {"iss": self.url, "aud": audience, "iat": int(now), "nbf": int(now), "exp": int(now + seconds)}
        return jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid})

    async def discovery(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"issuer": self.url, "jwks_uri": f"{self.url}/keys", "token_endpoint": f"{self.url}/token"}
        )

    async def published(self, _: web.Request) -> web.Response:
        self.asked_for_keys += 1
        found = [
            {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}
            for kid, key in self.keys.items()
        ]
        return web.json_response({"keys": found})

    async def give(self, request: web.Request) -> web.Response:
        form = await request.post()
        told = request.headers.get("authorization", "")
        good = "Basic " + base64.b64encode(b"client-1:s3cr3t%2Fwith%2Bsigns").decode()
        if told != good:
            return web.json_response({"error": "invalid_client", "error_description": "no such client"}, status=401)
        audience = str(form.get("audience"))
        if form.get("scope") == "opaque":
            return web.json_response({"access_token": "opaque", "token_type": "Bearer"})
        if form.get("scope") == "other":
            audience = "api://other"
        return web.json_response(
            {"access_token": self.token(audience, 3600), "token_type": "Bearer", "expires_in": 3600}
        )

    async def change(self, _: web.Request) -> web.Response:
        self.rotate()
        return web.Response(text="ok")

    async def asked(self, _: web.Request) -> web.Response:
        return web.json_response(self.asked_for_keys)


async def main() -> None:
    issuer = Issuer()
    app = web.Application()
    app.add_routes(
        [
            web.get("/.well-known/openid-configuration", issuer.discovery),
            web.get("/keys", issuer.published),
            web.post("/token", issuer.give),
            web.post("/rotate", issuer.change),
            web.get("/asked", issuer.asked),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(issuer.url, flush=True)
    # Whoever started it holds its standard input open.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
