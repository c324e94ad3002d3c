"""Tokens in place of keys: whose are accepted. Rules and the declaration.

Azure ML v1 knows `token_auth_enabled` alone, because its workspace is the issuer; here any OpenID Connect issuer can be
named, Entra ID among them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from aks_inference.facts.regions import Region, region_named, regions
from aks_inference.findings import NOTHING, Finding, Severity
from aks_inference.targets import TargetChoice
from aks_inference.values import Leaf, LeafList, Read, Spec, is_late
from aks_inference_runtime.api.endpoint import TokenAuth

_OF_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
ENTRA = "https://login.microsoftonline.com/<tenant>/v2.0"
_ARGUMENTS = ("token_issuer", "token_audiences", "token_jwks_uri")


class TokenSettings(Spec):
    """Whose tokens are accepted."""

    token_issuer: Leaf | None = None
    token_audiences: LeafList = ()
    token_jwks_uri: Leaf | None = None


def token_findings(read: Read[Any], *, asked: bool, target: TargetChoice | None) -> Iterator[Finding]:
    """The rules. `asked`: the endpoint wants tokens."""
    settings: TokenSettings = read.spec
    given = [name for name in _ARGUMENTS if getattr(settings, name)]
    if not asked:
        for name in given:
            yield Finding((name,), "has no effect without @token_auth_enabled", "add @token_auth_enabled true")
        return
    if read.whole("token_issuer"):
        if settings.token_issuer is None:
            yield Finding(("token_issuer",), "is required with @token_auth_enabled", f"add it, such as {ENTRA}")
        else:
            yield from _address("token_issuer", settings.token_issuer)
            yield from _far(settings.token_issuer, target)
    if read.whole("token_jwks_uri") and settings.token_jwks_uri is not None:
        yield from _address("token_jwks_uri", settings.token_jwks_uri)
    if read.whole("token_audiences"):
        yield from _audiences(settings.token_audiences)


def _audiences(audiences: tuple[Any, ...]) -> Iterator[Finding]:
    at = ("token_audiences",)
    if not audiences:
        rule = "is required with @token_auth_enabled: a token that was made for others must not open this endpoint"
        yield Finding(at, rule, "give the claim `aud` of its tokens, such as the client id of its app registration")
    plain = [audience for audience in audiences if not is_late(audience)]
    for index, audience in enumerate(audiences):
        if not is_late(audience) and (not audience or audience != audience.strip()):
            yield Finding((*at, index), "is empty, or begins or ends with a space", "mend it", audience)
    for double in sorted({a for a in plain if plain.count(a) > 1}):
        yield Finding(at, f"{double} is given {plain.count(double)} times", "give it once")


def _address(name: str, value: Any) -> Iterator[Finding]:  # noqa: ANN401 - a text or an output
    if is_late(value):
        return
    try:
        parts = urlsplit(value)
        host = parts.hostname
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        parts, host, port_ok = urlsplit(""), None, False
    plain = host is not None and port_ok and not re.search(r"\s", value) and not parts.username and not parts.fragment
    if not plain or parts.scheme not in ("http", "https") or (name == "token_issuer" and parts.query):
        mend = (
            "write it as the tokens' claim `iss` has it" if name == "token_issuer" else "give the address of the keys"
        )
        yield Finding((name,), "is no https address", mend, NOTHING if parts.username else value)
    elif parts.scheme == "http" and host not in _OF_THIS_MACHINE:
        rule = "is fetched without TLS: whoever is on the way could put keys of their own there"
        yield Finding((name,), rule, "begin it with https://", value)


def _far(issuer: Any, target: TargetChoice | None) -> Iterator[Finding]:  # noqa: ANN401 - a text or an output
    """Azure ML's advice: issuer and cluster in one region, since each new key is fetched from the issuer's."""
    location = None if target is None or target.kubernetes is None else target.kubernetes.location
    own = region_named(location) if location else None
    theirs = None if is_late(issuer) else issuer_region(issuer)
    if own is not None and theirs is not None and own.name != theirs.name:
        rule = (
            f"is in {theirs.display_name}, the cluster in {own.display_name}: new tokens wait for keys from there, and "
            f"are refused while that region cannot be reached"
        )
        yield Finding(("token_issuer",), rule, "use an issuer of the cluster's region", issuer, Severity.WARNING)


def issuer_region(issuer: str) -> Region | None:
    """The Azure region that an issuer's host names (`https://westeurope.oic.prod-aks.azure.com/…`), if it does."""
    host = urlsplit(issuer).hostname or ""
    return next((regions()[label] for label in re.split(r"[.-]", host) if label in regions()), None)


def token_auth(settings: TokenSettings) -> tuple[TokenAuth | None, Mapping[str, Any]]:
    """The declaration; what of it is known only later stands whole in the second place, as it goes over the wire."""
    given = (settings.token_issuer, *settings.token_audiences, settings.token_jwks_uri)
    if any(is_late(value) for value in given):
        late = {"issuer": settings.token_issuer, "audiences": list(settings.token_audiences)}
        if settings.token_jwks_uri is not None:
            late["jwksUri"] = settings.token_jwks_uri
        return None, late
    return TokenAuth(
        issuer=str(settings.token_issuer), audiences=settings.token_audiences, jwks_uri=settings.token_jwks_uri
    ), {}
