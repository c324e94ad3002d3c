"""Who may run at the replica: a count and a first-come-first-served line. No input or output here."""

from collections import deque
from collections.abc import Callable


class Ticket:
    """One request's place: waiting, then running, then finished."""

    __slots__ = ("finished", "orphan", "overdue", "running", "start")

    def __init__(self, start: Callable[[], None]) -> None:
        self.start = start
        self.running = False
        self.orphan = False
        self.overdue = False
        self.finished = False


class Admission:
    """At most `limit` tickets run at once, in the order in which they came."""

    def __init__(self, limit: int, changed: Callable[[], None]) -> None:
        self.limit = limit
        self.running = 0
        self.orphans = 0
        self.served_total = 0
        self._changed = changed
        self._line: deque[Ticket] = deque()
        self._at_replica: set[Ticket] = set()

    @property
    def waiting(self) -> int:
        """Tickets in the line."""
        return len(self._line)

    @property
    def hung(self) -> bool:
        """Whether all that the replica has is overdue: while it has anything else, it may be well."""
        return bool(self._at_replica) and all(ticket.overdue for ticket in self._at_replica)

    def enter(self, ticket: Ticket) -> bool:
        """Takes a slot for the ticket, or a place at the end of the line; True when it runs now."""
        if self.running < self.limit and not self._line:
            self._run(ticket)
            return True
        self._line.append(ticket)
        return False

    def leave(self, ticket: Ticket) -> bool:
        """Takes a waiting ticket out of the line; False when it runs already (then it must finish)."""
        if ticket.running:
            return False
        if not ticket.finished:
            ticket.finished = True
            self._line.remove(ticket)
            if ticket.orphan:
                self.orphans -= 1
                self._changed()
        return True

    def disown(self) -> None:
        """A new owner sends from now on, and knows nothing of what is here: all of it counts as orphans."""
        for ticket in (*self._at_replica, *self._line):
            if not ticket.orphan:
                ticket.orphan = True
                self.orphans += 1

    def abandon(self, ticket: Ticket) -> None:
        """Nobody waits for this running ticket any more, but the replica still works on it."""
        if ticket.running and not ticket.orphan:
            ticket.orphan = True
            self.orphans += 1
            self._changed()

    def finish(self, ticket: Ticket, *, served: bool = True) -> None:
        """The replica is done with it, or never got it: the slot goes to the next in line."""
        if ticket.finished:
            return
        ticket.finished = True
        ticket.running = False
        self.running -= 1
        self._at_replica.discard(ticket)
        self.served_total += served
        if ticket.orphan:
            self.orphans -= 1
            self._changed()
        while self._line and self.running < self.limit:
            self._run(self._line.popleft())

    def _run(self, ticket: Ticket) -> None:
        self.running += 1
        self._at_replica.add(ticket)
        ticket.running = True
        ticket.start()
