"""Tokens: what is accepted, what is not, and how an issuer's keys are kept."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.model import TokenRules
from aks_inference_runtime.router.tokens import fetch as fetch_module
from aks_inference_runtime.router.tokens.keys import FRESH_S, RENEW_S, UNKNOWN_S, IssuerKeys
from aks_inference_runtime.router.tokens.verdicts import Verdicts
from aks_inference_runtime.router.tokens.verify import LONGEST_S, Verdict, verify

ISSUER = "https://login.example/tenant/v2.0"
RULES = TokenRules(ISSUER, ("api://scoring", "other"))
NOW = 1_800_000_000.0
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
EC = ec.generate_private_key(ec.SECP256R1())


def public(key: Any, name: str, **changed: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, **changed}


class Issuer:
    """Its documents, and how often they were read."""

    def __init__(self) -> None:
        self.keys = [public(RSA, "rsa"), public(EC, "ec", use="sig")]
        self.asked: list[str] = []
        self.away = False
        self.clock = 0.0

    async def fetch(self, url: str) -> dict[str, Any]:
        self.asked.append(url)
        if self.away:
            raise RuntimeUnavailable("away")
        if url.endswith("/.well-known/openid-configuration"):
            return {"jwks_uri": "https://login.example/keys"}
        assert url == "https://login.example/keys"
        return {"keys": self.keys}

    def known(self) -> IssuerKeys:
        return IssuerKeys(ISSUER, None, self.fetch, lambda: self.clock)


def token(key: Any = RSA, kid: str | None = "rsa", algorithm: str = "RS256", **claims: Any) -> str:
    usual = {"iss": ISSUER, "aud": "api://scoring", "exp": NOW + 600, "nbf": NOW - 10}
    told = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(told, key, algorithm=algorithm, headers={"kid": kid} if kid is not None else None)


def forged(header: dict[str, Any], secret: bytes = b"") -> str:
    claims = {"iss": ISSUER, "aud": "api://scoring", "exp": NOW + 600}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest() if secret else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


async def judged(text: str, issuer: Issuer | None = None) -> Verdict:
    return await verify(text, RULES, (issuer or Issuer()).known(), lambda: NOW)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        (token(), NOW + 660),
        (token(EC, "ec", "ES256"), NOW + 660),
        # Where the issuer does not say which (as Entra ID), its key is for each of its type.
        *((token(algorithm=f"{kind}{bits}"), NOW + 660) for kind in ("RS", "PS") for bits in (256, 384, 512)),
        # The only one that fits.
        (token(kid=None), NOW + 660),
        (token(EC, None, "ES256"), NOW + 660),
        (token(aud=["x", "other"]), NOW + 660),
        (token(exp=NOW + 100_000), NOW + LONGEST_S),
        (token(exp=NOW - 59), NOW + 1),
        (token(nbf=NOW + 59), NOW + 660),
        (token(nbf=None), NOW + 660),
    ],
)
async def test_good_tokens(text: str, until: float) -> None:
    verdict = await judged(text)
    assert (verdict.good, verdict.until, verdict.why) == (True, until, "")


async def test_a_token_without_a_name_of_its_key() -> None:
    """OpenID Connect Core 10.1: where the issuer has one key, which then need not have a name either."""
    issuer = Issuer()
    one = public(RSA, "")
    del one["kid"]
    issuer.keys = [one, public(EC, "ec"), public(RSA, "x", use="enc")]
    assert (await judged(token(kid=None), issuer)).good
    assert not (await judged(token(kid="rsa"), issuer)).good, "no key has this name"
    issuer.keys = [*issuer.keys, public(rsa.generate_private_key(public_exponent=65_537, key_size=2_048), "next")]
    assert "does not have" in (await judged(token(kid=None), issuer)).why, "which, nobody can tell"
    assert (await judged(token(EC, None, "ES256"), issuer)).good


async def test_the_issuer_says_what_its_key_is_for() -> None:
    issuer = Issuer()
    issuer.keys = [public(RSA, "rsa", alg="RS256"), public(EC, "ec", alg="HS256")]
    assert (await judged(token(), issuer)).good
    assert not (await judged(token(algorithm="PS256"), issuer)).good
    assert not (await judged(token(EC, "ec", "ES256"), issuer)).good


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (token(exp=NOW - 61), "expired"),
        (token(nbf=NOW + 61), "not valid yet"),
        (token(iss="https://login.example/other"), "issuer"),
        (token(aud="api://else"), "udience"),
        (token(exp=None), "exp"),
        (token(aud=None), "aud"),
        (token(exp="soon"), ""),
        (token(kid="gone"), "does not have"),
        (token(rsa.generate_private_key(public_exponent=65_537, key_size=2_048)), "ignature"),
        (token(EC, "rsa", "ES256"), ""),
        (token(rsa.generate_private_key(public_exponent=65_537, key_size=2_048), None), "ignature"),
        (forged({"alg": "none"}), "signed with 'none'"),
        (forged({"alg": "none", "kid": "rsa"}), "signed with 'none'"),
        (forged({"alg": "HS256", "kid": "rsa"}, b"secret"), "signed with 'HS256'"),
        (token()[:-6] + "AAAAAA", "ignature"),
        ("a.b.c", ""),
        ("nonsense", ""),
        ("x" * 20_000, "longer"),
    ],
)
async def test_bad_tokens(text: str, why: str) -> None:
    verdict = await judged(text)
    assert not verdict.good
    assert why in verdict.why


async def test_a_new_key_is_found_and_an_unknown_one_is_not_asked_for_again_and_again() -> None:
    issuer = Issuer()
    keys = issuer.known()
    assert (await verify(token(), RULES, keys, lambda: NOW)).good
    read = len(issuer.asked)
    fresh = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    issuer.keys = [public(fresh, "next")]
    for _ in range(5):
        assert not (await verify(token(fresh, "next"), RULES, keys, lambda: NOW)).good
    assert len(issuer.asked) == read
    issuer.clock += UNKNOWN_S
    assert (await verify(token(fresh, "next"), RULES, keys, lambda: NOW)).good
    assert not (await verify(token(), RULES, keys, lambda: NOW)).good, "the old key was withdrawn"


async def test_a_known_key_does_not_wait_for_an_unknown_one() -> None:
    """Anybody can send a token that names a key which is not there; the issuer may be slow."""
    issuer = Issuer()
    asked, go = asyncio.Event(), asyncio.Event()

    async def fetch(url: str) -> dict[str, Any]:
        if issuer.asked and issuer.clock:
            asked.set()
            await go.wait()
        return await issuer.fetch(url)

    keys = IssuerKeys(ISSUER, None, fetch, lambda: issuer.clock)
    assert (await verify(token(), RULES, keys, lambda: NOW)).good
    issuer.clock += UNKNOWN_S
    unknown = asyncio.create_task(verify(token(kid="gone"), RULES, keys, lambda: NOW))
    await asked.wait()
    known = asyncio.create_task(verify(token(), RULES, keys, lambda: NOW))
    for _ in range(10):
        await asyncio.sleep(0)
    assert known.done()
    assert known.result().good
    go.set()
    assert not (await unknown).good


class Silent(Issuer):
    """It answers, or not, only once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.says = asyncio.Event()
        self.says.set()

    async def fetch(self, url: str) -> dict[str, Any]:
        await self.says.wait()
        return await super().fetch(url)


async def test_a_known_key_does_not_wait_for_a_silent_issuer() -> None:
    issuer = Silent()
    keys = issuer.known()
    assert (await verify(token(), RULES, keys, lambda: NOW)).good
    issuer.says.clear()
    issuer.clock += RENEW_S

    async def good_at_once() -> bool:
        asked = asyncio.create_task(verify(token(), RULES, keys, lambda: NOW))
        for _ in range(10):
            await asyncio.sleep(0)
        return asked.done() and asked.result().good

    assert await good_at_once(), "others are asked for before these are too old"
    issuer.away = True
    issuer.says.set()
    while keys._reading is not None:
        await asyncio.sleep(0)
    issuer.says.clear()
    for _ in range(3):
        issuer.clock += FRESH_S
        assert await good_at_once(), "it was asked in vain"
    assert keys._reading is not None
    await keys.close()


async def test_a_key_that_was_withdrawn_meanwhile_is_not_taken_after_a_long_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuer = Silent()
    keys = issuer.known()
    assert (await verify(token(), RULES, keys, lambda: NOW)).good
    issuer.keys = [public(EC, "ec")]
    issuer.clock += FRESH_S
    assert not (await verify(token(), RULES, keys, lambda: NOW)).good
    # What it says is waited for only for a while.
    monkeypatch.setattr("aks_inference_runtime.router.tokens.keys.PATIENCE_S", 0.05)
    issuer.says.clear()
    issuer.clock += FRESH_S
    assert (await verify(token(EC, "ec", "ES256"), RULES, keys, lambda: NOW)).good
    await keys.close()


async def test_the_known_keys_stay_while_the_issuer_is_away() -> None:
    issuer = Issuer()
    keys = issuer.known()
    issuer.away = True
    with pytest.raises(RuntimeUnavailable, match="could not be read"):
        await verify(token(), RULES, keys, lambda: NOW)
    issuer.away = False
    issuer.clock += UNKNOWN_S
    assert (await verify(token(), RULES, keys, lambda: NOW)).good
    issuer.away = True
    issuer.clock += 2 * FRESH_S
    assert (await verify(token(), RULES, keys, lambda: NOW)).good
    # Whether the issuer has this one meanwhile, nobody can tell; what is wrong in itself is still told.
    with pytest.raises(RuntimeUnavailable):
        await verify(token(kid="next"), RULES, keys, lambda: NOW)
    assert not (await verify(token(exp=NOW - 61), RULES, keys, lambda: NOW)).good
    issuer.away = False
    issuer.clock += UNKNOWN_S
    assert "does not have" in (await verify(token(kid="next"), RULES, keys, lambda: NOW)).why


async def test_an_encryption_key_signs_nothing() -> None:
    issuer = Issuer()
    issuer.keys = [public(RSA, "rsa", use="enc"), {"kid": "odd", "kty": "oct", "k": "AAAA"}]
    assert not (await judged(token(), issuer)).good


async def test_a_verdict_is_remembered_and_forgotten(tmp_path: Any) -> None:
    issuer = Issuer()
    at = NOW
    entries: dict[str, bool] = {}

    async def remember(entry: str, good: bool) -> None:
        entries[entry] = good

    verdicts = Verdicts(tmp_path / "v", issuer.fetch, remember, lambda: at)
    verdicts.declare({"/score": RULES})
    text = token()
    assert await verdicts.verdict("1|1|abc|token", "/score", text)
    assert entries == {f"{hashlib.sha256(text.encode()).hexdigest()}#1|1|abc|token": True}
    assert not await verdicts.verdict("1|1|abc|token", "/other", text)
    for _ in range(3):  # HAProxy began anew and asks again
        assert await verdicts.verdict("1|1|abc|token", "/score", text)
    assert len(verdicts._timers) == 1
    at = NOW + 700
    assert not await verdicts.verdict("1|1|abc|token", "/score", text)
    await verdicts.close()


async def test_the_oldest_token_goes_where_there_are_too_many(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aks_inference_runtime.router.tokens.verdicts.MOST_IN_MAP", 2)
    issuer = Issuer()
    there: dict[str, bool] = {}
    told = asyncio.Event()

    async def remember(entry: str, good: bool) -> None:
        there[entry] = good
        told.set()

    verdicts = Verdicts(tmp_path / "v", issuer.fetch, remember, lambda: NOW)
    verdicts.declare({"/score": RULES})
    texts = [token(exp=NOW + 600 + number) for number in range(3)]
    # The first one is asked about again, so the second one is the oldest.
    for text in (*texts[:2], texts[0], texts[2]):
        assert await verdicts.verdict("m", "/score", text)
    entries = [f"{hashlib.sha256(text.encode()).hexdigest()}#m" for text in texts]
    async with asyncio.timeout(30):
        while there[entries[1]]:
            told.clear()
            await told.wait()
    assert [there[entry] for entry in entries] == [True, False, True]
    assert len(verdicts._timers) == 2
    await verdicts.close()


async def test_a_token_that_ends_is_forgotten_once(tmp_path: Any) -> None:
    issuer = Issuer()
    told: list[tuple[str, bool]] = []
    forgotten = asyncio.Event()

    async def remember(entry: str, good: bool) -> None:
        told.append((entry, good))
        if not good:
            forgotten.set()

    verdicts = Verdicts(tmp_path / "v", issuer.fetch, remember, lambda: NOW)
    verdicts.declare({"/score": RULES})
    text = token(exp=NOW - 59.9)  # 60 s of skew
    for _ in range(3):
        assert await verdicts.verdict("m", "/score", text)
    async with asyncio.timeout(30):
        await forgotten.wait()
    assert [good for _, good in told] == [True, True, True, False]
    assert verdicts._timers == {}
    await verdicts.close()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"keys": []}', ""),
        (b"[]", "no JSON object"),
        (b"{", "JSONDecodeError"),
        (b"[" * 200_000, "Error"),
        (b'{"keys": "' + b"x" * fetch_module.MOST_BYTES + b'"}', "more than"),
    ],
)
async def test_what_an_issuer_publishes(body: bytes, told: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        if told:
            with pytest.raises(RuntimeUnavailable, match=told):
                await fetch_module.fetch(url)
        else:
            assert await fetch_module.fetch(url) == {"keys": []}


async def test_refused_tokens_are_counted_and_do_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def remember(_: str, __: bool) -> None:
        raise AssertionError("a bad one")

    caplog.set_level(logging.INFO)
    verdicts = Verdicts(tmp_path / "socket", Issuer().fetch, remember, lambda: NOW)
    verdicts.declare({"/score": RULES})
    for number in range(200):
        assert not await verdicts.verdict("meta", "/score", f"no-token-{number}")
    assert caplog.records == []
    await verdicts.close()
    (told,) = caplog.messages
    assert told.startswith("/score: a token is refused: ")
    assert told.endswith("(200)")
