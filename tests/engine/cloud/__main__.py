"""A provider whose cloud is a folder: one file a thing, named by its URN, so that a create that comes again finds it.

`cloud:index:Thing`: `value` updates, `key` replaces, `delay` is how long each change takes in seconds, `fail` makes
the create fail. The folder is CLOUD_FOLDER. With CLOUD_CUT=before or after, the engine (the process ENGINE_PID) is
killed at the first change, just before or just after it is made.
"""

import hashlib
import json
import os
import signal
import sys
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

FOLDER = Path(os.environ["CLOUD_FOLDER"])


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(values)
    return made


def values(of: struct_pb2.Struct) -> dict[str, Any]:
    return dict(json_format.MessageToDict(of))


def path_of(identity: str) -> Path:
    return FOLDER / f"{identity}.json"


def cut(place: str) -> None:
    if os.environ.get("CLOUD_CUT") == place:
        os.kill(int(os.environ["ENGINE_PID"]), signal.SIGKILL)


def put(identity: str, content: dict[str, Any]) -> None:
    temporary = FOLDER / f"{identity}.{time.monotonic_ns()}.tmp"
    temporary.write_text(json.dumps(content))
    cut("before")
    temporary.replace(path_of(identity))
    cut("after")


class Cloud(provider_pb2_grpc.ResourceProviderServicer):
    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(supportsPreview=True, acceptSecrets=False)

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="1.0.0")

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:
        old, new = values(request.old_inputs), values(request.news)
        changed = [k for k in sorted({*old, *new}) if k not in ("delay", "fail") and old.get(k) != new.get(k)]
        kind = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
        replaces = [key for key in changed if key == "key"]
        return provider_pb2.DiffResponse(changes=kind, diffs=changed, replaces=replaces)

    def Create(self, request: Any, context: Any) -> Any:
        inputs = values(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        if inputs.get("fail"):
            context.abort(grpc.StatusCode.UNKNOWN, "create failed as asked")
        identity = hashlib.sha256(f"{request.urn} {inputs.get('key')}".encode()).hexdigest()[:16]
        time.sleep(inputs.get("delay", 0) / 2)
        put(identity, {"urn": request.urn, **inputs})
        time.sleep(inputs.get("delay", 0) / 2)
        return provider_pb2.CreateResponse(id=identity, properties=struct({**inputs, "made": identity}))

    def Read(self, request: Any, context: Any) -> Any:
        if not path_of(request.id).exists():
            return provider_pb2.ReadResponse()
        content = json.loads(path_of(request.id).read_text())
        content.pop("urn")
        outputs = {**content, "made": request.id}
        return provider_pb2.ReadResponse(id=request.id, inputs=struct(content), properties=struct(outputs))

    def Update(self, request: Any, context: Any) -> Any:
        inputs = values(request.news)
        if not request.preview:
            time.sleep(inputs.get("delay", 0) / 2)
            put(request.id, {"urn": request.urn, **inputs})
            time.sleep(inputs.get("delay", 0) / 2)
        return provider_pb2.UpdateResponse(properties=struct({**inputs, "made": request.id}))

    def Delete(self, request: Any, context: Any) -> Any:
        delay = values(request.properties).get("delay", 0)
        time.sleep(delay / 2)
        cut("before")
        path_of(request.id).unlink(missing_ok=True)
        cut("after")
        time.sleep(delay / 2)
        return empty_pb2.Empty()


server = grpc.server(futures.ThreadPoolExecutor(16))
provider_pb2_grpc.add_ResourceProviderServicer_to_server(Cloud(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
(FOLDER.parent / "plugins").mkdir(exist_ok=True)
(FOLDER.parent / "plugins" / str(os.getpid())).touch()
server.wait_for_termination()
sys.exit(0)
