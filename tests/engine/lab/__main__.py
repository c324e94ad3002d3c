"""A provider that does what a test asks for: fails, half fails, dies, knows little, builds components.

Every call is a line `<method> <name>` in the file LAB_LOG; where a time was given, `Within <name> <seconds>` follows.
`lab:index:Thing`: `value` updates, `key` replaces, `dbr` replaces with the old one going first; `fail` is `create`,
`create-partial`, `update-partial` or `die` (the process ends in the middle of the create). What exists is a file in the
folder LAB_CLOUD; its text is the value. LAB_OLD makes it an old plugin: no Handshake, no secrets, no previews, no
comparisons.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pulumi
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.provider import CallResult, ConstructResult, Provider
from pulumi.provider.server import ProviderServicer
from pulumi.runtime.proto import provider_pb2 as pb
from pulumi.runtime.proto import provider_pb2_grpc, status_pb2

CLOUD = Path(os.environ["LAB_CLOUD"])
OLD = bool(os.environ.get("LAB_OLD"))
COMPARED = ("value", "key", "dbr")


def struct(content: dict[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    json_format.ParseDict(content, made)
    return made


def content(of: struct_pb2.Struct) -> dict[str, Any]:
    return dict(json_format.MessageToDict(of))


def plain(value: Any) -> Any:
    return value["value"] if isinstance(value, dict) and "value" in value else value


def note(method: str, name: str = "") -> None:
    with Path(os.environ["LAB_LOG"]).open("a") as log:
        log.write(f"{method} {name}\n")


def within(request: Any) -> None:
    if request.timeout:
        note("Within", f"{request.name} {request.timeout:g}")


class Thing(pulumi.CustomResource):
    made: pulumi.Output[str]

    def __init__(self, name: str, value: Any, opts: pulumi.ResourceOptions) -> None:
        super().__init__("lab:index:Thing", name, {"value": value, "made": None}, opts)


class Pair(pulumi.ComponentResource):
    def __init__(self, name: str, inputs: Any, opts: pulumi.ResourceOptions | None) -> None:
        super().__init__("lab:index:Pair", name, {}, opts)
        first = Thing(f"{name}-first", inputs["value"], pulumi.ResourceOptions(parent=self))
        self.state = {"made": first.made, "value": inputs["value"]}
        self.register_outputs(self.state)


class Components(Provider):
    def construct(
        self, name: str, resource_type: str, inputs: Any, options: pulumi.ResourceOptions | None = None
    ) -> ConstructResult:
        if resource_type == "lab:index:Bad":
            raise pulumi.InputPropertiesError(
                "Invalid arguments", [{"property_path": "size.x", "reason": "must not be negative"}]
            )
        pair = Pair(name, dict(inputs), options)
        return ConstructResult(pair.urn, pair.state)

    def call(self, token: str, args: Any) -> CallResult:
        return CallResult({"said": pulumi.Output.from_input(args["word"]).apply(lambda word: f"said {word}")})


class Servicer(ProviderServicer):
    async def Handshake(self, request: Any, context: Any) -> Any:
        if OLD:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no Handshake")
        return pb.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True, accept_outputs=True)

    async def CheckConfig(self, request: Any, context: Any) -> Any:
        return pb.CheckResponse(inputs=request.news)

    async def DiffConfig(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no DiffConfig")

    async def Configure(self, request: Any, context: Any) -> Any:
        note("Configure", request.name)
        return pb.ConfigureResponse(acceptSecrets=not OLD, supportsPreview=not OLD)

    async def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    async def Check(self, request: Any, context: Any) -> Any:
        note("Check", request.name)
        return pb.CheckResponse(inputs=request.news)

    async def Diff(self, request: Any, context: Any) -> Any:
        note("Diff", request.name)
        if OLD:
            return pb.DiffResponse(changes=pb.DiffResponse.DIFF_UNKNOWN)
        old, new = content(request.old_inputs), content(request.news)
        changed = [key for key in COMPARED if plain(old.get(key)) != plain(new.get(key))]
        return pb.DiffResponse(
            changes=pb.DiffResponse.DIFF_SOME if changed else pb.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=[key for key in changed if key != "value"],
            deleteBeforeReplace="dbr" in changed,
        )

    async def Create(self, request: Any, context: Any) -> Any:
        inputs = content(request.properties)
        if request.preview:
            unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
            return pb.CreateResponse(properties=struct({**inputs, "made": unknown}))
        note("Create", request.name)
        within(request)
        fail = inputs.get("fail")
        if fail == "create":
            await context.abort(grpc.StatusCode.UNKNOWN, f"create of {request.name} failed as asked")
        count = len(list(CLOUD.glob(f"{request.name}-*"))) + len(list(CLOUD.glob(f".{request.name}-*"))) + 1
        identity = f"{request.name}-{count}"
        (CLOUD / identity).write_text(json.dumps(plain(inputs.get("value"))))
        if fail == "die":
            os._exit(9)
        outputs = struct({**inputs, "made": f"made-{identity}"})
        if fail == "create-partial":
            await self.half(context, identity, outputs, request.properties)
        return pb.CreateResponse(id=identity, properties=outputs)

    async def Update(self, request: Any, context: Any) -> Any:
        inputs = content(request.news)
        outputs = struct({**inputs, "made": f"made-{request.id}"})
        if not request.preview:
            note("Update", request.name)
            within(request)
            (CLOUD / request.id).write_text(json.dumps(plain(inputs.get("value"))))
            if inputs.get("fail") == "update-partial":
                await self.half(context, request.id, outputs, request.news)
        return pb.UpdateResponse(properties=outputs)

    async def Read(self, request: Any, context: Any) -> Any:
        note("Read", request.name)
        path = CLOUD / request.id
        if not path.exists():
            return pb.ReadResponse()
        inputs = {**content(request.inputs), "value": json.loads(path.read_text())}
        outputs = struct({**inputs, "made": f"made-{request.id}"})
        return pb.ReadResponse(id=request.id, inputs=struct(inputs), properties=outputs)

    async def Delete(self, request: Any, context: Any) -> Any:
        note("Delete", request.name)
        within(request)
        path = CLOUD / request.id
        path.rename(path.with_name(f".{path.name}"))
        return empty_pb2.Empty()

    async def half(self, context: Any, identity: str, outputs: Any, inputs: Any) -> None:
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message="not ready")
        failed = pb.ErrorResourceInitFailed(id=identity, properties=outputs, inputs=inputs, reasons=["not ready"])
        status.details.add().Pack(failed)
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(grpc.StatusCode.UNKNOWN, "not ready", trailing_metadata=metadata)


async def serve(engine_address: str) -> None:
    server = grpc.aio.server()
    servicer = Servicer(Components("1.0.0"), sys.argv, engine_address)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


asyncio.run(serve(sys.argv[1]))
