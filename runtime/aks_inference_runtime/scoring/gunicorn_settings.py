"""Read by gunicorn in the replica's environment; names that its release does not know are passed over."""

import errno
import io
import logging
import sys
from typing import Any

# One for all of a user, under the home directory: replicas would take it from each other and leave it behind.
control_socket_disable = True
# The server logs every request itself.
accesslog = None
# The server's own handler writes gunicorn's errors too; without this they stand in the log twice.
errorlog = "/dev/null"
# Of its own settings (AML_APP_ROOT, AZUREML_MODEL_DIR ...) the server says in each process that it does not know them.
logging.getLogger("azmlinfsrv").addFilter(lambda record: not str(record.msg).startswith("Found extra keys"))


class _Log(io.FileIO):
    """A log whose lines are lost while its disk is full.

    An error in place of them would fail scores that print, and end gunicorn's workers at a point where they take the
    listening socket's address away: nobody would reach those that come after them.
    """

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - anything like bytes
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            return memoryview(data).nbytes


for _name, _number in (("stdout", 1), ("stderr", 2)):
    _text = io.TextIOWrapper(
        _Log(_number, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    setattr(sys, _name, _text)
