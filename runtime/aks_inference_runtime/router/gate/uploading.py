"""How fast a body must come: pure."""

UPLOAD_GRACE_SECONDS = 30.0
UPLOAD_BYTES_PER_SECOND = 50_000
"""A body may take the grace and this rate: slower ones would hold a replica for nothing."""


def too_slow(seconds: float, size: int) -> bool:
    """Whether so many bytes took too long."""
    return seconds > UPLOAD_GRACE_SECONDS + size / UPLOAD_BYTES_PER_SECOND
