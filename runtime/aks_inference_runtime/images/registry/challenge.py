"""What a registry asks for with status 401 (RFC 9110, section 11; distribution's "Token authentication")."""

import re
from dataclasses import dataclass

_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*(Bearer|Basic)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Challenge:
    """One way in: `bearer` with the place that gives tokens, or `basic`."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""
    error: str = ""


def parse_challenges(headers: list[str]) -> tuple[Challenge, ...]:
    """The challenges of all `WWW-Authenticate` headers, those with tokens first."""
    found = [challenge for header in headers for challenge in _of_one(header)]
    return tuple(sorted(found, key=lambda challenge: challenge.scheme != "bearer"))


def _of_one(header: str) -> list[Challenge]:
    starts = list(_SCHEME.finditer(header))
    ends = [*(match.start() for match in starts), len(header)][1:]
    pairs = zip(starts, ends, strict=False)
    return [_challenge(match[1].lower(), header[match.end() : end]) for match, end in pairs]


def _challenge(scheme: str, text: str) -> Challenge:
    values = {
        m[1].lower(): re.sub(r"\\(.)", r"\1", m[2]) if m[2] is not None else m[3] for m in _PARAMETER.finditer(text)
    }
    names = ("realm", "service", "scope", "error")
    realm, service, scope, error = (values.get(name, "") for name in names)
    return Challenge(scheme, realm, service, scope, error)
