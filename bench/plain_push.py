"""What a registry itself takes for the image of a changed script: the same requests by plain sockets alone."""

import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from aks_inference_runtime.images.registry.manifest import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    artifact_manifest,
    index_manifest,
    json_bytes,
    sha256,
)


@dataclass(frozen=True)
class PlainImage:
    """Contents as large as those of an image that was pushed, and as new to the registry."""

    layer: bytes
    config: bytes
    manifest: Manifest
    bill: Descriptor
    bill_content: bytes

    @staticmethod
    def like(manifest: Manifest, config: bytes, bill: Descriptor) -> "PlainImage":
        """With another last layer, another configuration for it and another bill of materials."""
        data, said = manifest.data, json.loads(config)
        layer = os.urandom(data["layers"][-1]["size"])
        said["rootfs"]["diff_ids"][-1] = sha256(layer)
        changed = json_bytes(said)
        data["layers"][-1] |= {"digest": sha256(layer)}
        data["config"] |= {"digest": sha256(changed), "size": len(changed)}
        content = os.urandom(bill.size)
        described = Descriptor(bill.media_type, sha256(content), bill.size)
        return PlainImage(layer, changed, Manifest(OCI_MANIFEST, json_bytes(data)), described, content)

    def push(self, host: str, repository: str, tag: str, *, described: bool, newer: bool) -> float:
        """Seconds: the blobs at once, each over a connection that is open, then the manifest. `described`: with the
        bill of materials, attached before the image has its tag. `newer`: to a registry with referrers that takes a
        small blob in one request; else a blob takes two, and a listing says what is attached."""
        begin = f"/v2/{repository}/"
        blobs = [self.layer, self.config, *([self.bill_content] if described else [])]
        image = self.manifest.descriptor()
        artifact = artifact_manifest(self.bill.media_type, self.bill, image)
        listing = index_manifest((artifact.descriptor().to_json(),))
        connections = [_Connection(host) for _ in blobs]
        first = connections[-1]
        pairs = zip(connections[:-1], blobs[:-1], strict=True)
        others = [threading.Thread(target=one.blob, args=(begin, content, newer)) for one, content in pairs]
        start = time.perf_counter()
        for other in others:
            other.start()
        first.blob(begin, blobs[-1], newer)
        if described:
            first.manifest(begin, artifact.digest, artifact)
            if not newer:
                first.manifest(begin, image.digest.replace(":", "-"), listing)
        for other in others:
            other.join()
        first.manifest(begin, tag, self.manifest)
        seconds = time.perf_counter() - start
        for one in connections:
            one.close()
        return seconds


class _Connection:
    def __init__(self, host: str) -> None:
        name, _, port = host.partition(":")
        self._socket = socket.create_connection((name, int(port)), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def blob(self, begin: str, content: bytes, whole: bool) -> None:
        if whole:
            self.ask("POST", f"{begin}blobs/uploads/?digest={sha256(content)}", content, expected=201)
            return
        headers = self.ask("POST", f"{begin}blobs/uploads/", expected=202)
        where = begin + headers["location"].partition(begin)[2]
        self.ask("PUT", f"{where}&digest={sha256(content)}", content, expected=201)

    def manifest(self, begin: str, name: str, manifest: Manifest) -> None:
        kind = OCI_INDEX if manifest.is_index else OCI_MANIFEST
        self.ask("PUT", f"{begin}manifests/{name}", manifest.content, kind, expected=201)

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
