"""Certificates of the scoring address: what is wrong with one, before it is served. Pure."""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from aks_inference_runtime.api.errors import InvalidInput

SOON = timedelta(days=30)
"""Before its end a certificate is warned of: CAs renew at about a third of 90 days."""
LEAST_RSA_BITS = 2_048
"""Clients refuse less (CA/Browser Forum, Baseline Requirements 6.1.5)."""
MOST_BYTES = 15_000
"""Of chain and key together: HAProxy takes a new certificate only if it fits its buffer of 16 KiB."""


class Part(Enum):
    """Of what is given, what a problem is about."""

    CHAIN = "certificate"
    KEY = "key"
    NAME = "name"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    part: Part
    rule: str
    mend: str
    warning: bool = False


@dataclass(frozen=True)
class Certificate:
    """A certificate with its chain and its key, both in PEM form, as written by us: no comments, no empty lines."""

    chain: str
    """The server's own first, then each issuer."""
    key: str = field(repr=False)
    ends: datetime | None = None
    """Of the server's own; None: not looked up."""

    @property
    def pem(self) -> str:
        """Both in one text, as HAProxy has them."""
        return self.chain + self.key


@dataclass(frozen=True)
class Judged:
    """What was found."""

    certificate: Certificate | None
    """None: it cannot be served."""
    problems: tuple[Problem, ...]
    names: tuple[str, ...] = ()
    ends: datetime | None = None


def judge(chain: bytes, key: bytes, name: str | None, now: datetime) -> Judged:
    """Reads a certificate and says all that is wrong with it.

    Args:
        chain: Required. PEM: the server's certificate, then the intermediate ones.
        key: Required. PEM, not encrypted.
        name: Required. The host that clients will ask for, or its address; None: any.
        now: Required. With its zone.
    """
    found, problems = _chain(chain)
    private, wrong = _key(key)
    problems += wrong
    if found:
        problems += _order(found)
        problems += _dates(found, now)
        problems += _names(found[0], name)
    if found and private is not None:
        problems += _pair(found, private)
    certificate = None
    if found and private is not None:
        certificate = Certificate(
            "".join(one.public_bytes(Encoding.PEM).decode() for one in found),
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            found[0].not_valid_after_utc,
        )
        if len(certificate.pem) > MOST_BYTES:
            rule = f"has {len(certificate.pem):,} bytes with its key, and HAProxy takes {MOST_BYTES:,}"
            problems.append(Problem(Part.CHAIN, rule, "leave out the root certificate, or use an elliptic curve"))
    if any(not problem.warning for problem in problems):
        certificate = None
    names = tuple(_names_of(found[0])) if found else ()
    return Judged(certificate, tuple(problems), names, found[0].not_valid_after_utc if found else None)


def usable(chain: bytes, key: bytes) -> Certificate:
    """A certificate to serve with, whatever its dates and names. Raises InvalidInput."""
    found, problems = _chain(chain)
    private, wrong = _key(key)
    problems += wrong
    if found and private is not None:
        problems += _pair(found, private)
    if problems or private is None:
        raise InvalidInput("; ".join(f"the {one.part.value} {one.rule}" for one in problems))
    return Certificate(
        "".join(one.public_bytes(Encoding.PEM).decode() for one in found),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        found[0].not_valid_after_utc,
    )


Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _chain(text: bytes) -> tuple[list[x509.Certificate], list[Problem]]:
    try:
        return x509.load_pem_x509_certificates(text), []
    except ValueError:
        rule = "holds no certificate in PEM form"
        return [], [Problem(Part.CHAIN, rule, "begin each with -----BEGIN CERTIFICATE-----")]


def _key(text: bytes) -> tuple[Private | None, list[Problem]]:
    try:
        private = load_pem_private_key(text, None)
    except TypeError:
        rule = "is encrypted, and nobody would be there to give its password when a router starts"
        return None, [Problem(Part.KEY, rule, "decrypt it: openssl pkey -in … -out …")]
    except (ValueError, UnsupportedAlgorithm):
        rule = "holds no private key in PEM form"
        return None, [Problem(Part.KEY, rule, "begin it with -----BEGIN PRIVATE KEY-----")]
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < LEAST_RSA_BITS:
            rule = f"is an RSA key of {private.key_size} bits, which clients refuse"
            return None, [Problem(Part.KEY, rule, f"use {LEAST_RSA_BITS} bits or more")]
        return private, []
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private, []
    return None, [Problem(Part.KEY, "is neither an RSA nor an elliptic curve key", "use one of them")]


def _pair(chain: Sequence[x509.Certificate], private: Private) -> list[Problem]:
    mine = _public(private.public_key())
    places = [index for index, one in enumerate(chain) if _public(one.public_key()) == mine]
    if places and places[0] == 0:
        return []
    if places:
        rule = f"begins with another certificate than the key's, which is number {places[0] + 1}"
        return [Problem(Part.CHAIN, rule, "put the server's own certificate first, then its issuers")]
    return [Problem(Part.KEY, "does not belong to the certificate", "give the key that it was issued for")]


def _public(key: object) -> bytes | None:
    encode = getattr(key, "public_bytes", None)
    return None if encode is None else encode(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _order(chain: Sequence[x509.Certificate]) -> Iterator[Problem]:
    for index, (one, issuer) in enumerate(pairwise(chain)):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            rule = f"has certificates of which number {index + 2} did not issue number {index + 1}"
            yield Problem(Part.CHAIN, rule, "put each certificate before the one that issued it")
    if len(chain) > 1:
        return
    if chain[0].issuer == chain[0].subject:
        rule = "is issued by itself: clients refuse it unless they were told to trust it"
        yield Problem(Part.CHAIN, rule, "use it for trials only", warning=True)
    else:
        rule = "is alone in its file: clients that do not have the intermediate certificate refuse it"
        yield Problem(Part.CHAIN, rule, "add the certificates of its issuers behind it", warning=True)


def _dates(chain: Sequence[x509.Certificate], now: datetime) -> Iterator[Problem]:
    for index, one in enumerate(chain):
        which = "" if index == 0 else f" (number {index + 1} in the file)"
        begins, ends = one.not_valid_before_utc, one.not_valid_after_utc
        if ends <= now:
            yield Problem(Part.CHAIN, f"ended on {ends:%Y-%m-%d %H:%M} UTC{which}", "renew it")
        elif begins > now:
            mend = "wait, or set this machine's clock"
            yield Problem(Part.CHAIN, f"begins only on {begins:%Y-%m-%d %H:%M} UTC{which}", mend)
        elif ends - now < SOON:
            rule = f"ends on {ends:%Y-%m-%d}{which}, in {(ends - now).days} days"
            yield Problem(Part.CHAIN, rule, "renew it", warning=True)


def _names(leaf: x509.Certificate, name: str | None) -> Iterator[Problem]:
    names = list(_names_of(leaf))
    if not names:
        rule = "names no host (subject alternative name), and clients do not look at the common name"
        yield Problem(Part.CHAIN, rule, "have it issued with the name as subject alternative name")
    elif name is not None and not any(matches(one, name) for one in names):
        yield Problem(Part.NAME, f"is not in the certificate, which is for {', '.join(names[:5])}", "give one of these")


def _names_of(leaf: x509.Certificate) -> Iterator[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return
    yield from found.get_values_for_type(x509.DNSName)
    yield from map(str, found.get_values_for_type(x509.IPAddress))


def matches(pattern: str, name: str) -> bool:
    """Whether a certificate's name is good for a host: `*` stands for one whole first label (RFC 6125 6.4.3)."""
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    try:
        return ipaddress.ip_address(pattern) == ipaddress.ip_address(name)
    except ValueError:
        pass
    if pattern.startswith("*."):
        first, _, rest = name.partition(".")
        return bool(first) and rest == pattern[2:] and "." in rest
    return pattern == name
