"""The signs, words and colours of operations, the same as the pulumi CLI's."""

import dataclasses
import re

from embedded_engine.model import urn_name, urn_type

_RESET = "\x1b[0m"
_CODES = {"green": "\x1b[32m", "red": "\x1b[31m", "yellow": "\x1b[33m", "magenta": "\x1b[35m", "bold": "\x1b[1m"}
_CODES |= {"dim": "\x1b[2m", "plain": ""}


@dataclasses.dataclass(frozen=True)
class Words:
    """`plan`: in a preview; `doing`, `done`, `failed`: while it runs and afterwards; `counted`: in the summary."""

    sign: str
    color: str
    plan: str
    doing: str
    done: str
    failed: str
    counted: tuple[str, str] = ("", "")


OPERATIONS = {
    "same": Words("", "plain", "", "", "", "failed"),
    "create": Words("+", "green", "create", "creating", "created", "creating failed", ("to create", "created")),
    "update": Words("~", "yellow", "update", "updating", "updated", "updating failed", ("to update", "updated")),
    "delete": Words("-", "red", "delete", "deleting", "deleted", "deleting failed", ("to delete", "deleted")),
    "replace": Words(
        "+-", "magenta", "replace", "replacing", "replaced", "replacing failed", ("to replace", "replaced")
    ),
    "create-replacement": Words(
        "++",
        "green",
        "create replacement",
        "creating replacement",
        "created replacement",
        "creating replacement failed",
    ),
    "delete-replaced": Words(
        "--", "red", "delete original", "deleting original", "deleted original", "deleting original failed"
    ),
    "read": Words(">", "plain", "read", "reading", "read", "reading failed", ("to read", "read")),
    "read-replacement": Words(
        ">>",
        "plain",
        "read for replacement",
        "reading for replacement",
        "read for replacement",
        "reading for replacement failed",
    ),
    "refresh": Words(
        "~", "yellow", "refresh", "refreshing", "refreshed", "refreshing failed", ("to refresh", "refreshed")
    ),
    "discard": Words(
        "<", "red", "discard", "discarding", "discarded", "discarding failed", ("to discard", "discarded")
    ),
    "discard-replaced": Words(
        "<<", "red", "discard original", "discarding original", "discarded original", "discarding original failed"
    ),
    "import": Words("=", "green", "import", "importing", "imported", "importing failed", ("to import", "imported")),
    "import-replacement": Words(
        "=",
        "green",
        "import replacement",
        "importing replacement",
        "imported replacement",
        "importing replacement failed",
    ),
}
# In the order of the summary.
COUNTED = tuple(op for op, words in OPERATIONS.items() if words.counted[0])
HALVES = ("create-replacement", "delete-replaced", "discard-replaced", "read-replacement", "import-replacement")

_DIRECTIVE = re.compile(r"<\{%[^%]*%\}>")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def words_of(op: str) -> Words:
    return OPERATIONS.get(op, Words("?", "plain", op, op, op, f"{op} failed"))


def paint(text: str, color: str, enabled: bool) -> str:
    return f"{_CODES[color]}{text}{_RESET}" if enabled and _CODES[color] and text else text


def safe(text: str) -> str:
    """A message without what could move a terminal's cursor, and without Pulumi's colour directives."""
    return _CONTROL.sub("", _ESCAPE.sub("", _DIRECTIVE.sub("", text.replace("\r\n", "\n"))))


def short_type(urn: str) -> str:
    """`kubernetes:apps/v1:Deployment` as it stands; `aws:s3/bucket:Bucket` as `aws:s3:Bucket`."""
    token = urn_type(urn)
    package, _, rest = token.partition(":")
    module, _, name = rest.rpartition(":")
    folder, slash, file = module.rpartition("/")
    if slash and file and file.lower() == name.lower():
        module = folder
    return f"{package}:{module}:{name}" if module else token


def label(urn: str) -> str:
    return f"{short_type(urn)} ({urn_name(urn)})"
