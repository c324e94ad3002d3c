"""Tokens in place of keys on a local cluster: a real issuer process, the real router, the command that gets a token."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api.errors import InvalidInput

COMMAND = Path(sys.executable).with_name("aks-inference")
AUDIENCE = "api://scoring"
CLIENT = {"AKS_INFERENCE_CLIENT_ID": "client-1", "AKS_INFERENCE_CLIENT_SECRET": "s3cr3t/with+signs"}


@dataclass
class Issuer:
    url: str

    async def post(self, path: str) -> None:
        async with aiohttp.ClientSession() as session, session.post(self.url + path) as answer:
            assert answer.status == 200

    async def asked(self) -> int:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/asked") as answer:
            return int(await answer.text())


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("oidc_issuer.py")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with asyncio.timeout(60):
            url = (await process.stdout.readline()).decode().strip()
        yield Issuer(url)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1", **variables},
    )
    out, err = await process.communicate()
    assert "Traceback" not in err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_token_opens_the_endpoint(local: Any, issuer: Issuer, tmp_path: Path) -> None:
    """Got by the command, scored with; the issuer's keys are fetched once, rotate, and a bad token is 401."""
    await local.launch()
    token = {"issuer": issuer.url, "audiences": [AUDIENCE]}
    with pytest.raises(InvalidInput, match=r"spec\.token: is required with auth token"):
        await local.client.put_endpoint(local.declared("svc", spec={"auth": "token"}, models=[]))
    with_state = ("--state-directory", str(local.state))
    status = await local.deploy(local.declared("svc", spec={"auth": "token", "token": token}, script=SCRIPT))

    code, out, err = await run(*with_state, "token", "svc", **CLIENT)
    assert code == 0, err
    good = out.strip()
    assert "get the next one after " in err
    assert good not in err
    code, out, _ = await run("--json", *with_state, "token", "svc", **CLIENT)
    told = json.loads(out)
    assert (code, told["tokenType"], told["issuer"], told["audience"]) == (0, "Bearer", issuer.url, AUDIENCE)
    assert told["refreshAfter"] < told["expiryOn"]

    async with aiohttp.ClientSession() as session:

        async def ask(key: str | None) -> tuple[int, str | None]:
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            async with session.post(status.scoring_uri, json={}, headers=headers) as answer:
                return answer.status, answer.headers.get("x-aks-inference-reason")

        for _ in range(5):
            assert await ask(good) == (200, None)
        assert await issuer.asked() == 1
        for bad in (None, "nonsense", good[:-4] + "AAAA"):
            assert await ask(bad) == (401, "auth")

        # What the router remembers is its own: it knows the token also while the supervisor is away.
        await issuer.post("/rotate")
        assert await ask(good) == (200, None)

    code, out, _ = await run(*with_state, "score", "svc", "--data", str(body(tmp_path)), AKS_INFERENCE_KEY=good)
    assert code == 0
    code, _, err = await run(*with_state, "score", "svc", "--data", str(body(tmp_path)))
    assert code == 2
    assert 'asks for a token: AKS_INFERENCE_KEY="$(aks-inference token svc)"' in err


SCRIPT = "import json\ndef init():\n    pass\ndef run(data):\n    return json.loads(data)\n"


def body(folder: Path) -> Path:
    path = folder / "body.json"
    path.write_text("{}")
    return path


async def test_what_the_command_says_when_there_is_no_token(issuer: Issuer, tmp_path: Path) -> None:
    asked = ("token", "--issuer", issuer.url, "--audience", AUDIENCE)
    nobody = {"PATH": str(tmp_path)}
    wrong = {**CLIENT, "AKS_INFERENCE_CLIENT_SECRET": "hush-hush"}
    cases: list[tuple[tuple[str, ...], dict[str, str], int, str]] = [
        (("token",), CLIENT, 2, "name an endpoint, or give --issuer and --audience"),
        (asked, nobody, 2, "no credentials: set AKS_INFERENCE_CLIENT_ID and"),
        (asked, {"AKS_INFERENCE_CLIENT_ID": "client-1"}, 2, "no secret of the client: set AKS_INFERENCE_CLIENT_SECRET"),
        (asked, wrong, 1, "gave no token (status 401): invalid_client: no such client"),
        ((*asked, "--scope", "opaque"), CLIENT, 1, "gave a token that is no JWT with a time of expiry"),
        ((*asked, "--scope", "other"), CLIENT, 1, "the token is for 'api://other', the endpoint takes those for"),
        (("token", "--issuer", f"{issuer.url}/x", "--audience", "a"), CLIENT, 1, "no token endpoint (status 404)"),
        (("token", "--issuer", "http://127.0.0.1:1", "--audience", "a"), CLIENT, 4, "the issuer does not answer"),
    ]
    done = await asyncio.gather(*(run(*arguments, **variables) for arguments, variables, _, _ in cases))
    for (code, out, err), (arguments, _, expected, said) in zip(done, cases, strict=True):
        assert (code, out) == (expected, ""), (arguments, err)
        assert said in err, (arguments, err)
        assert "hush-hush" not in err


async def test_the_azure_cli_is_asked_where_no_client_is_given(tmp_path: Path) -> None:
    """By a stand-in for `az`, which notes what it was asked."""
    import time

    import jwt

    issuer = "https://login.microsoftonline.com/tenant-1/v2.0"
    claims = {"iss": issuer, "aud": "app-1", "exp": int(time.time()) + 3600}
    token = jwt.encode(claims, "k" * 32, algorithm="HS256")
    az = tmp_path / "az"
    az.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho \'{{"accessToken": "{token}"}}\'\n')
    az.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    code, out, err = await run("token", "--issuer", issuer, "--audience", "app-1", PATH=path)
    assert (code, out.strip()) == (0, token), err
    assert (tmp_path / "asked").read_text().split() == [
        *("account", "get-access-token", "--output", "json", "--scope", "app-1/.default", "--tenant", "tenant-1")
    ]
    other = issuer.replace("/v2.0", "/v1.0")
    code, _, err = await run("token", "--issuer", other, "--audience", "app-1", PATH=path)
    assert code == 1
    assert "requestedAccessTokenVersion 2" in err
    az.write_text("#!/bin/sh\necho 'ERROR: Please run az login' >&2\nexit 1\n")
    code, _, err = await run("token", "--issuer", issuer, "--audience", "app-1", PATH=path)
    assert (code, "az gave no token: ERROR: Please run az login" in err) == (1, True)
