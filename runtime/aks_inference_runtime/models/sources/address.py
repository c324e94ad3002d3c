"""What a model's path names when it is not a path of this machine. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.reference import ImageReference

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}(?:\.blob\.[a-z0-9.-]+)?|[a-z0-9]{3,24}")
"""A storage account, alone or as the host of another cloud."""
_CONTAINER = re.compile(r"\$web|\$root|[a-z0-9](?:-?[a-z0-9]){2,62}")
_SECRET_QUERY = frozenset({"sig", "signature", "token", "access_token", "api_key", "key", "x-amz-signature"})
"""Parts of a query that let anybody in who reads them; a path stands in state, diffs and logs."""


class Scheme(StrEnum):
    """The kinds of remote sources."""

    HTTPS = "https"
    BLOB = "az"
    OCI = "oci"
    MLFLOW_RUN = "runs"
    MLFLOW_MODEL = "models"


@dataclass(frozen=True)
class Address:
    """A remote source, taken apart."""

    scheme: Scheme
    text: str
    """As it was given."""
    place: str
    """Host, storage account, registry, run id or registered model."""
    path: str
    """Within the place, without a leading slash: container and blob, repository and tag, path in the run."""

    @property
    def base_name(self) -> str:
        """What the file or folder is called."""
        if self.scheme is Scheme.OCI:
            return ImageReference.parse(self.text.removeprefix("oci://")).repository.rpartition("/")[2]
        return PurePosixPath(self.path).name or self.place


def parse_address(text: str) -> Address:
    """Takes a remote path apart. Raises InvalidInput that says the rule and the mend."""
    if text.startswith(("runs:", "models:")):
        return _mlflow(text)
    if text.startswith("oci://"):
        reference = ImageReference.parse(text.removeprefix("oci://"))
        return Address(Scheme.OCI, text, reference.registry, f"{reference.repository}:{reference.target}")
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not an address ({error})") from None
    if parts.username or parts.password:
        raise InvalidInput("holds a user name or password, which would stand in state and logs; use ~/.netrc")
    if parts.scheme == "az":
        return _blob(text, parts.netloc, parts.path)
    if parts.scheme == "http" and host not in LOOPBACK:
        raise InvalidInput(f"{text!r} is not protected on its way; use https://")
    if not host or not PurePosixPath(unquote(parts.path)).name:
        raise InvalidInput(f"{text!r} names no file; give https://host/path/file")
    secret = sorted({name for name, _ in parse_qsl(parts.query) if name.lower() in _SECRET_QUERY})
    if secret:
        raise InvalidInput(
            f"holds a secret in its query ({', '.join(secret)}), which would stand in state and logs; use ~/.netrc, "
            f"or az://account/container/path with your identity"
        )
    return Address(Scheme.HTTPS, text, parts.netloc, unquote(parts.path).lstrip("/"))


def _blob(text: str, account: str, path: str) -> Address:
    container, _, blob = path.lstrip("/").partition("/")
    if not _ACCOUNT.fullmatch(account):
        raise InvalidInput(f"{account!r} is not a storage account (3 to 24 lower-case letters and digits)")
    if not _CONTAINER.fullmatch(container):
        raise InvalidInput(
            f"{container!r} is not a container (3 to 63 lower-case letters, digits and single dashes); write "
            "az://account/container/path"
        )
    if not blob.strip("/"):
        raise InvalidInput(f"{text!r} names a whole container; write az://account/container/path")
    return Address(Scheme.BLOB, text, account, f"{container}/{blob.strip('/')}")


def _mlflow(text: str) -> Address:
    scheme, _, rest = text.partition(":")
    place, _, path = rest.lstrip("/").partition("/")
    if scheme == "runs":
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", place) or not path.strip("/"):
            raise InvalidInput(f"{text!r} is not an artifact of a run; write runs:/RUN_ID/PATH")
        if ".." in PurePosixPath(path).parts:
            raise InvalidInput(f"{text!r} leaves the run's artifacts")
        return Address(Scheme.MLFLOW_RUN, text, place, path.strip("/"))
    name, at, alias = place.partition("@")
    if not name or (at and (not alias or path)) or (not at and not path.strip("/")) or "/" in path.strip("/"):
        raise InvalidInput(f"{text!r} is not a registered model; write models:/NAME/VERSION or models:/NAME@ALIAS")
    return Address(Scheme.MLFLOW_MODEL, text, name, alias if at else path.strip("/"))
