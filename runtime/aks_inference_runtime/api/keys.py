"""The rule for the keys of an endpoint that a user gives, and digests that nobody without a key can guess at."""

import hashlib
import hmac
import re

SHORTEST_KEY = 8
"""Characters; generated keys have 32."""
LONGEST_KEY = 4_096
"""Characters. All header lines of a request together have 15 kB in HAProxy (`tune.bufsize` less `tune.maxrewrite`), and
one line 8,190 bytes in common proxies and servers (nginx, aiohttp, gunicorn)."""
DIGEST_LENGTH = 16
"""Hexadecimal digits of a digest in a name: two of one service are never equal by chance."""
_CARRIED = re.compile(r"[\x21-\x7e]+")


SAME_KEYS = (
    "is the same as the primary one: no key could be changed while the other one is in use",
    "give another one",
)
"""The broken rule of two keys, and the mend."""


def key_problem(key: str) -> tuple[str, str] | None:
    """The broken rule and the mend, None for a good key. Neither text holds anything of the key."""
    if not _CARRIED.fullmatch(key):
        rule = "is empty, or has spaces or characters that no header can carry"
        return rule, "use letters, digits and punctuation (ASCII), or leave it out to have one generated"
    if len(key) > LONGEST_KEY:
        return f"is longer than {LONGEST_KEY:,} characters: no request could carry it", "give a shorter one"
    if len(key) < SHORTEST_KEY:
        rule = f"is shorter than {SHORTEST_KEY} characters and easily guessed"
        return rule, "give a longer one, or leave it out to have one generated"
    return None


def keyed_digest(key: str, text: str) -> str:
    """Another one for each text; without the key nobody can try texts until one fits."""
    return hmac.digest(key.encode(), text.encode(), hashlib.sha256).hex()[:DIGEST_LENGTH]


def kept_keys(
    primary: str | None, secondary: str | None, before: tuple[str | None, str | None]
) -> tuple[str | None, str | None]:
    """Both keys by those that are given (None: not) and those of before; None is to be generated.

    What was not given stays. Where the key that would stay is given in the other place, both change places: all that
    clients hold goes on being good.
    """
    old_primary, old_secondary = before
    first = _stays(primary, old_primary, old_secondary, secondary)
    return first, _stays(secondary, old_secondary, old_primary, first)


def _stays(given: str | None, old: str | None, old_other: str | None, other: str | None) -> str | None:
    if given is not None:
        return given
    if other is None or old != other:
        return old
    return None if old_other == other else old_other
