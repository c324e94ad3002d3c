"""Credentials of registries: given ones first, then those of `docker login` (its config.json). Never logged."""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput

HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
"""Docker stores the login of Docker Hub under its oldest address."""
TOKEN_USER = "00000000-0000-0000-0000-000000000000"  # noqa: S105 - a documented constant, no secret
"""The user name that Azure Container Registry takes with a refresh token."""


@dataclass(frozen=True)
class Login:
    """A user name and password, or a refresh token (`identity_token`) in their place."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class CredentialStore:
    """Logins by registry host."""

    logins: Mapping[str, Login] = field(default_factory=dict, repr=False)

    def get(self, registry: str) -> Login | None:
        """The login of a registry; None: ask without."""
        names = HUB_KEYS if registry in HUB_KEYS else (registry,)
        return next((self.logins[name] for name in names if name in self.logins), None)

    def having(self, registry: str, login: Login) -> "CredentialStore":
        """A store where this login goes before what was there."""
        name = HUB_KEYS[0] if registry in HUB_KEYS else registry
        return CredentialStore({**self.logins, name: login})

    @staticmethod
    def from_docker(path: Path | None = None) -> "CredentialStore":
        """The logins of `docker login`; empty when there is no file. Raises InvalidInput without its content.

        path: Optional. Default `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`. Entries that a credential
        helper keeps are left out: helpers are programs that the caller did not name.
        """
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        file = path or folder / "config.json"
        try:
            raw = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return CredentialStore()
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{file}: cannot be read as JSON ({type(error).__name__}); log in again") from None
        auths = raw.get("auths") if isinstance(raw, dict) else None
        if auths is not None and not isinstance(auths, dict):
            raise InvalidInput(f"{file}: `auths` is not an object; log in again")
        found = {_host(name): _login(file, name, entry) for name, entry in (auths or {}).items()}
        return CredentialStore({name: login for name, login in found.items() if login is not None})


def _host(name: str) -> str:
    return name if name in HUB_KEYS else name.removeprefix("https://").removeprefix("http://").split("/", maxsplit=1)[0]


def _login(file: Path, name: str, entry: object) -> Login | None:
    if not isinstance(entry, dict):
        raise InvalidInput(f"{file}: the entry of {name} is not an object; log in again")
    token = str(entry.get("identitytoken") or "")
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        try:
            username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidInput(f"{file}: the entry of {name} is not a login; log in again") from None
        return Login(username, password.rstrip("\0"), token)
    if entry.get("username"):
        return Login(str(entry["username"]), str(entry.get("password") or ""), token)
    return Login(TOKEN_USER, "", token) if token else None
