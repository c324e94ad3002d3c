"""Whether a token is good: signature, issuer, audience, times. The clock is injected."""

from collections.abc import Callable
from dataclasses import dataclass

import jwt

from aks_inference_runtime.router.model import TokenRules
from aks_inference_runtime.router.tokens.keys import ALGORITHMS, IssuerKeys

LONGEST_S = 3_600.0
"""A verdict is kept no longer: the issuer may have withdrawn the key."""
MOST_BYTES = 16_384


@dataclass(frozen=True)
class Verdict:
    """About one token for one endpoint."""

    good: bool
    until: float
    """Seconds since 1970 until which it stands; for a bad one 0."""
    why: str = ""


async def verify(token: str, rules: TokenRules, keys: IssuerKeys, now: Callable[[], float]) -> Verdict:
    """The verdict. Never raises for what stands in a token; RuntimeUnavailable when nobody can tell now."""
    if len(token) > MOST_BYTES:
        return Verdict(False, 0, "longer than a token may be")
    try:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            return Verdict(False, 0, f"signed with {algorithm!r}")
        key = await keys.key(header.get("kid"), algorithm)
        if key is None:
            return Verdict(False, 0, "signed with a key that the issuer does not have")
        claims = jwt.decode(
            token,
            key.public,
            algorithms=[algorithm],
            audience=list(rules.audiences),
            issuer=rules.issuer,
            # Times are looked at below, by the injected clock.
            options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        expires, begins = float(claims["exp"]), float(claims.get("nbf", 0))
    except jwt.PyJWTError as error:
        return Verdict(False, 0, str(error))
    except (ValueError, TypeError):
        return Verdict(False, 0, "its times are no numbers")
    at = now()
    if not at < expires + rules.skew_s:
        return Verdict(False, 0, "it has expired")
    if not at >= begins - rules.skew_s:
        return Verdict(False, 0, "it is not valid yet")
    return Verdict(True, min(expires + rules.skew_s, at + LONGEST_S))
