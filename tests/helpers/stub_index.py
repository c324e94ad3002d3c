"""A package index on 127.0.0.1, in JSON or HTML, that can refuse, hang and send what is no page."""

import contextlib
import gzip
import http.server
import json
import threading
from typing import Any

JSON = "application/vnd.pypi.simple.v1+json"


class StubIndex:
    """Serves `/simple/NAME/`."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.logins: list[str | None] = []
        self.status = 404
        self.headers: dict[str, str] = {}
        # Cleared: nobody is answered.
        self.open = threading.Event()
        self.open.set()
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                index.logins.append(self.headers.get("Authorization"))
                index.open.wait(60)
                kind, body = index.pages.get(self.path.rstrip("/").rpartition("/")[2], ("", b""))
                self.send_response(200 if kind else index.status)
                packed = "gzip" in self.headers.get("Accept-Encoding", "") and kind == JSON
                body = gzip.compress(body) if packed else body
                for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *index.headers.items()):
                    self.send_header(name, value)
                if packed:
                    self.send_header("Content-Encoding", "gzip")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                # Who asked may have left.
                with contextlib.suppress(OSError):
                    super().handle()

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True)
        self._thread.start()
        self.host = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{self.host}/simple"

    def add(self, name: str, *files: str | dict[str, Any]) -> None:
        """A page in JSON."""
        listed = [{"filename": one} if isinstance(one, str) else one for one in files]
        self.pages[name] = (JSON, json.dumps({"name": name, "files": listed}).encode())

    def add_html(self, name: str, *anchors: str) -> None:
        """A page in HTML."""
        self.pages[name] = ("text/html; charset=utf-8", "".join(anchors).encode())

    def close(self) -> None:
        """Ends it, and lets go who waits. May be called twice."""
        self.open.set()
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
