"""When to try again and how long to wait before it. Pure."""

from dataclasses import dataclass
from email.utils import parsedate_to_datetime

RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What passes by itself (RFC 9110, RFC 6585); every request of the distribution API may be repeated."""


@dataclass(frozen=True)
class Backoff:
    """Exponential waiting with jitter, and a registry's own wish where it says one."""

    tries: int = 6
    first_s: float = 0.25
    factor: float = 2.0
    longest_s: float = 15.0
    longest_wish_s: float = 60.0
    """A registry that wants more is given up: the caller should hear of it."""

    def wait_s(self, failures: int, retry_after: str | None, now_s: float, random: float) -> float | None:
        """Seconds to wait after this many failures; None: give up. `now_s`: Unix time; `random`: 0 to 1."""
        if failures >= self.tries:
            return None
        wished = retry_after_s(retry_after, now_s)
        if wished is not None:
            return wished if wished <= self.longest_wish_s else None
        longest = min(self.longest_s, self.first_s * self.factor ** (failures - 1))
        return longest * (0.5 + random / 2)


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date; None when it is neither."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value.strip())
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, TypeError):
        return None
