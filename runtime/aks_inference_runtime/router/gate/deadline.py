"""When a request's wait ends, as the router says it: pure.

HAProxy begins its own count anew with each replica that it sends a request to (2.8 has one `timeout queue` for a
backend, and looks at no rule again). So it says when it put the request into the queue, and for how long it may stay
there; the gate refuses what comes later. Its clock is another machine's: its agent tells what that shows, and without
it nothing is refused.
"""

from typing import NamedTuple

LATE_SECONDS = 0.25
"""What HAProxy took from its queue in time is served, also where a busy machine held it up on its way to the gate:
under overload most of those that are served come at the end of their time."""
LONGEST_WAIT_S = 3_600.0
"""No queue holds a request so long: a time before that is nobody's who waited."""
_MOST_DIGITS = 15
"""Of milliseconds since 1970, for the next 30,000 years."""


class Waited(NamedTuple):
    """Of one request."""

    seconds: float = 0.0
    """By the clocks of router and gate as they are."""
    left_s: float | None = None
    """Until its deadline; below 0: it is past. None: not known."""


def waited(since: bytes | None, wall_s: float, ahead_s: float | None) -> Waited:
    """From `<ms since 1970>+<ms that it may wait>`.

    Args:
        since: Required. What the router says; None: the request did not wait.
        wall_s: Required. Now, since 1970.
        ahead_s: Required. By how much this clock is ahead of the router's; None: not known.
    """
    began, _, most = (since or b"").partition(b"+")
    if not began.isdigit() or len(began) > _MOST_DIGITS:
        return Waited()
    seconds = wall_s - int(began) / 1_000
    # The clocks of two machines may differ.
    shown = seconds if 0.0 <= seconds <= LONGEST_WAIT_S else 0.0
    if ahead_s is None or not most.isdigit() or len(most) > _MOST_DIGITS:
        return Waited(shown)
    may_wait_s = int(most) / 1_000
    left_s = may_wait_s - (seconds - ahead_s)
    # Later than a second wait can make it: it ran at a gate that was killed, and is sent again.
    return Waited(shown, None if left_s < -may_wait_s - LATE_SECONDS else left_s)
