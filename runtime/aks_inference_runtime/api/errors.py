"""All errors of the package.

AksInferenceError
├── InvalidInput           something the caller gave breaks a rule
├── NotFound               no such endpoint, version, model or replica
├── Conflict               in use, or already there with other content
├── RuntimeUnavailable     the supervisor or the cluster does not answer
│   └── RuntimeHung        the supervisor runs, and does not answer in time
└── OperationFailed        it was accepted and then did not work (a replica failed, a build broke, a deadline passed)
"""


class AksInferenceError(Exception):
    """Base of all errors; its text is fit for a user."""


class InvalidInput(AksInferenceError):
    """Something the caller gave breaks a rule; the text says where, what, the rule and the mend."""


class NotFound(AksInferenceError):
    """No such endpoint, version, model or replica."""


class Conflict(AksInferenceError):
    """In use, or already there with other content; the text says by whom."""


class RuntimeUnavailable(AksInferenceError):
    """The supervisor or the cluster does not answer."""


class RuntimeHung(RuntimeUnavailable):
    """The supervisor runs and does not answer in time: starting another one is no help."""


class OperationFailed(AksInferenceError):
    """It was accepted and then did not work; the text carries the tail of the log where there is one."""
