"""What a disk says when it takes no more, as an error of the package."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aks_inference_runtime.api.errors import OperationFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """The disk's errors as OperationFailed with the mend. `path`: what is named where the error names nothing."""
    try:
        yield
    except OSError as error:
        mend = "; the disk is full: make room and apply again" if error.errno in _FULL else ""
        raise OperationFailed(f"{error.filename or path}: {error.strerror or error}{mend}") from None
