"""The stand-in of Azure over HTTP: what a client of ARM sees, with a sign-in that knows one secret."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from standin_arm import ArmError, Azure

SECRET, BEARER = "the-secret", "the-token"
LISTED = "/providers/Microsoft.Storage/storageAccounts"
TAGS = "/providers/Microsoft.Resources/tags/default"


class ArmServer:
    """Use it as a context manager; `environment` is what a client needs."""

    def __init__(self, azure: Azure) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(azure))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "ArmServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {
            "ARM_RESOURCE_MANAGER_ENDPOINT": url,
            "ARM_AUTHORITY_HOST": url,
            "ARM_TENANT_ID": "tenant",
            "ARM_CLIENT_ID": "client",
            "ARM_CLIENT_SECRET": SECRET,
            "ARM_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000001",
        }


def _handler(azure: Azure) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            form = parse_qs(self._body().decode())
            if form.get("client_secret") == [SECRET]:
                self._answer(200, {"access_token": BEARER})
            else:
                self._answer(401, {"error": "invalid_client", "error_description": "wrong secret"})

        def do_GET(self) -> None:
            self._signed(lambda path: azure.listed(path) if path.endswith(LISTED) else azure.get(path))

        def do_PATCH(self) -> None:
            body = json.loads(self._body())

            def tag(path: str) -> dict[str, Any]:
                tags = azure.tag(path.removesuffix(TAGS), body["operation"], body["properties"]["tags"])
                return {"properties": {"tags": tags}}

            self._signed(tag)

        def _signed(self, work: Any) -> None:
            if self.headers.get("Authorization") != f"Bearer {BEARER}":
                self._answer(401, {"error": {"code": "AuthenticationFailed", "message": "no token"}})
                return
            try:
                found = work(urlsplit(self.path).path)
            except ArmError as error:
                retry = {"Retry-After": "0"} if error.status == 429 else {}
                self._answer(error.status, {"error": {"code": error.code, "message": error.message}}, retry)
                return
            if found is None:
                self._answer(404, {"error": {"code": "ResourceNotFound", "message": self.path}})
            else:
                self._answer(200, found)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler
