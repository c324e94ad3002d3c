"""A small client of the API server for tests: one call, one answer; wrong status codes are values, not exceptions."""

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import yaml

_APPLY = "application/apply-patch+yaml"
Json = dict[str, Any]


class Answer(NamedTuple):
    """What the API server said."""

    status: int
    body: Json

    @property
    def message(self) -> str:
        """Of a refusal."""
        return str(self.body.get("message", ""))


class Api:
    """Calls as the user of a kubeconfig (certificates or token), or as somebody else by impersonation."""

    def __init__(self, kubeconfig: Path, impersonate: str | None = None) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        names = {kind: {entry["name"]: entry for entry in config[f"{kind}s"]} for kind in ("cluster", "user")}
        (context,) = [c["context"] for c in config["contexts"] if c["name"] == config["current-context"]]
        cluster = names["cluster"][context["cluster"]]["cluster"]
        user = names["user"][context["user"]]["user"]
        self.server = cluster["server"]
        self._headers = {"Accept": "application/json"}
        if impersonate:
            self._headers["Impersonate-User"] = impersonate
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"
        authority = cluster.get("certificate-authority-data")
        data = base64.b64decode(authority).decode() if authority else None
        self._context = ssl.create_default_context(cadata=data, cafile=cluster.get("certificate-authority"))
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                for key in ("client-certificate-data", "client-key-data"):
                    file.write(base64.b64decode(user[key]))
                file.flush()
                self._context.load_cert_chain(file.name)

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json", **query: str) -> Answer:
        """One request."""
        address = f"{self.server}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is the kubeconfig's
            address, data, {**self._headers, "Content-Type": kind}, method=method
        )
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=30) as answer:  # noqa: S310
                return Answer(answer.status, _read(answer.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _read(error.read()))

    def get(self, path: str, **query: str) -> Answer:
        """Reads."""
        return self.call("GET", path, **query)

    def create(self, path: str, body: object, **query: str) -> Answer:
        """Makes an object in a collection."""
        return self.call("POST", path, body, **query)

    def delete(self, path: str, **query: str) -> Answer:
        """Removes."""
        return self.call("DELETE", path, **query)

    def apply(self, path: str, body: object, manager: str = "test", **query: str) -> Answer:
        """Server-side apply of one object."""
        return self.call("PATCH", path, body, _APPLY, fieldManager=manager, force="true", **query)

    def merge(self, path: str, body: object, **query: str) -> Answer:
        """A merge patch."""
        return self.call("PATCH", path, body, "application/merge-patch+json", **query)


def _read(data: bytes) -> Json:
    try:
        content = json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace")}
    return content if isinstance(content, dict) else {"items": content}
