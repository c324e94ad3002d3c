"""What a registry itself takes for the image of a changed script: the same requests by plain sockets alone."""

import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from aks_inference_runtime.images.registry.manifest import OCI_MANIFEST, Manifest, json_bytes, sha256


@dataclass(frozen=True)
class PlainImage:
    """Contents as large as those of an image that was pushed, and as new to the registry."""

    layer: bytes
    config: bytes
    manifest: bytes

    @staticmethod
    def like(manifest: Manifest, config: bytes) -> "PlainImage":
        """With another last layer, and another configuration for it."""
        data, said = manifest.data, json.loads(config)
        layer = os.urandom(data["layers"][-1]["size"])
        said["rootfs"]["diff_ids"][-1] = sha256(layer)
        changed = json_bytes(said)
        data["layers"][-1] |= {"digest": sha256(layer)}
        data["config"] |= {"digest": sha256(changed), "size": len(changed)}
        return PlainImage(layer, changed, json_bytes(data))

    def push(self, host: str, repository: str, tag: str) -> float:
        """Seconds: both blobs at once, each over a connection that is open, then the manifest."""
        begin = f"/v2/{repository}/"
        first, second = (_Connection(host) for _ in range(2))
        start = time.perf_counter()
        other = threading.Thread(target=second.blob, args=(begin, self.config))
        other.start()
        first.blob(begin, self.layer)
        other.join()
        first.ask("PUT", f"{begin}manifests/{tag}", self.manifest, OCI_MANIFEST, expected=201)
        seconds = time.perf_counter() - start
        first.close()
        second.close()
        return seconds


class _Connection:
    def __init__(self, host: str) -> None:
        name, _, port = host.partition(":")
        self._socket = socket.create_connection((name, int(port)), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def blob(self, begin: str, content: bytes) -> None:
        headers = self.ask("POST", f"{begin}blobs/uploads/", expected=202)
        where = begin + headers["location"].partition(begin)[2]
        self.ask("PUT", f"{where}&digest={sha256(content)}", content, expected=201)

    def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream", *, expected: int
    ) -> dict[str, Any]:
        head = f"{method} {path} HTTP/1.1\r\nHost: registry\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        self._socket.sendall(f"{head}\r\n".encode() + body)
        answer = b""
        # None of these answers has a body.
        while not answer.endswith(b"\r\n\r\n"):
            got = self._socket.recv(65_536)
            if not got:
                break
            answer += got
        status, *lines = answer.decode().split("\r\n")
        if f" {expected} " not in status:
            raise SystemExit(f"{method} {path} answered {status!r}")
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    def close(self) -> None:
        self._socket.close()
