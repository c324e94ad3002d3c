"""`pulumi-resource-azure-native` for tests: Pulumi's provider protocol in front of the stand-in of Azure.

Environment: `STANDIN_FOLDER` (state), `STANDIN_DATA` (the tables), `STANDIN_TODAY`.
"""

import asyncio
import os
import sys
import uuid
from datetime import date
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from standin_arm import ArmError, Azure
from standin_bodies import SUBSCRIPTION, Kind, Tables, body_of, id_of
from standin_kubernetes import kubeconfig

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SIGNATURE, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
ATTEMPTS = 50
TENANT = "00000000-0000-0000-0000-00000000000f"
LOCATED = ("ManagedCluster", "UserAssignedIdentity", "DataCollectionRule", "DataCollectionEndpoint")


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    def __init__(self, azure: Azure, tables: Tables) -> None:
        self.azure, self.tables, self.location, self.subscription = azure, tables, "", SUBSCRIPTION

    async def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_outputs=True)

    async def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="3.29.0")

    async def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Configure(self, request: Any, context: Any) -> Any:
        given = plain(request.args)
        self.location, self.subscription = given.get("location") or "", given.get("subscriptionId") or SUBSCRIPTION
        return provider_pb2.ConfigureResponse(acceptSecrets=True, acceptOutputs=True, supportsPreview=True)

    async def Check(self, request: Any, context: Any) -> Any:
        kind, news, olds = self._kind(request.urn), plain(request.news), plain(request.olds)
        failures = []
        if kind.fields is not None:
            unknown = [name for name in news if name not in kind.fields and name not in kind.path]
            failures = [provider_pb2.CheckFailure(property=name, reason="not an input") for name in unknown]
        name = kind.path[-1]
        if name not in news:
            fresh = (
                str(uuid.uuid4()) if "RoleAssignment" in kind.token else f"{_name(request.urn)}{uuid.uuid4().hex[:8]}"
            )
            news[name] = olds.get(name) or fresh
        if "location" not in news and kind.token.rpartition(":")[2] in (*LOCATED, "ResourceGroup") and self.location:
            news["location"] = self.location
        return provider_pb2.CheckResponse(inputs=struct(news), failures=failures)

    async def Diff(self, request: Any, context: Any) -> Any:
        token = self._kind(request.urn).token
        olds = plain(request.old_inputs) if request.HasField("old_inputs") else plain(request.olds)
        found = dict(differences(olds, plain(request.news)))
        ignored = list(request.ignoreChanges)
        found = {path: what for path, what in found.items() if not any(path.startswith(one) for one in ignored)}
        detailed, replaces = {}, []
        for path, what in found.items():
            again = self.tables.replaces(token, path)
            detailed[path] = provider_pb2.PropertyDiff(
                kind=provider_pb2.PropertyDiff.Kind.Value(f"{what}_REPLACE" if again else what), inputDiff=True
            )
            if again:
                replaces.append(path)
        some = provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE
        tops = sorted({path.partition(".")[0].partition("[")[0] for path in found})
        return provider_pb2.DiffResponse(
            changes=some, diffs=tops, replaces=replaces, detailedDiff=detailed, hasDetailedDiff=True,
            deleteBeforeReplace=bool(replaces),
        )  # fmt: skip

    async def Invoke(self, request: Any, context: Any) -> Any:
        given = plain(request.args)
        if request.tok.endswith(":getClientConfig"):
            client = {"tenantId": TENANT, "subscriptionId": self.subscription}
            return provider_pb2.InvokeResponse(**{"return": struct(client)})
        group = f"/subscriptions/{self.subscription}/resourceGroups/{given['resourceGroupName']}/providers"
        if request.tok.endswith(":getSubnet"):
            network = f"{group}/Microsoft.Network/virtualNetworks/{given['virtualNetworkName']}"
            return provider_pb2.InvokeResponse(**{"return": struct({"id": f"{network}/subnets/{given['subnetName']}"})})
        identity = f"{group}/Microsoft.ContainerService/managedClusters/{given['resourceName']}"
        if request.tok.endswith(":getAgentPool"):
            identity = f"{identity}/agentPools/{given['agentPoolName']}"
        found = await self._call(context, lambda: self.azure.get(identity))
        if found is None:
            await context.abort(grpc.StatusCode.UNKNOWN, f"{identity} was not found")
        if request.tok.endswith(":listManagedClusterUserCredentials"):
            value = kubeconfig(found, self.azure.behind, given.get("format", "azure"))
            found = {"kubeconfigs": [{"name": "clusterUser", "value": value}]}
        else:
            said = {"identity": found.get("identity"), **found["properties"]}
            found = {key: value for key, value in said.items() if value is not None}
        return provider_pb2.InvokeResponse(**{"return": struct(found)})

    async def Create(self, request: Any, context: Any) -> Any:
        kind, inputs = self._kind(request.urn), plain(request.properties)
        if request.preview:
            later = dict.fromkeys(("principalId", "clientId", "fqdn", "privateFQDN", "identityProfile"), UNKNOWN)
            name = inputs.get(kind.path[-1], UNKNOWN)
            return provider_pb2.CreateResponse(properties=struct({**inputs, **later, "name": name}))
        identity = id_of(kind, inputs)
        if self.azure.get_quiet(identity):
            await context.abort(grpc.StatusCode.UNKNOWN, f"cannot create already existing resource '{identity}'")
        outputs = await self._written(context, kind, identity, inputs)
        return provider_pb2.CreateResponse(id=identity, properties=struct(outputs))

    async def Update(self, request: Any, context: Any) -> Any:
        kind, inputs = self._kind(request.urn), plain(request.news)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=struct({**plain(request.olds), **inputs}))
        outputs = await self._written(context, kind, request.id, inputs)
        return provider_pb2.UpdateResponse(properties=struct(outputs))

    async def Read(self, request: Any, context: Any) -> Any:
        found = await self._call(context, lambda: self.azure.get(request.id))
        if found is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=request.id, inputs=request.inputs, properties=request.properties)

    async def Delete(self, request: Any, context: Any) -> Any:
        await self._call(context, lambda: self.azure.delete(request.id))
        return empty_pb2.Empty()

    async def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def _kind(self, urn: str) -> Kind:
        return self.tables.kind(urn.split("::")[2].rpartition("$")[2])

    async def _written(self, context: Any, kind: Kind, identity: str, inputs: dict[str, Any]) -> dict[str, Any]:
        if "location" not in inputs and kind.token.rpartition(":")[2] in LOCATED:
            group = self.azure.get_quiet("/".join(identity.split("/")[:5]))
            inputs = {**inputs, "location": (group or {}).get("location", "westeurope")}
        body = body_of(kind, inputs)
        await self._call(context, lambda: self.azure.put(kind, identity, body))
        for _ in range(ATTEMPTS * 20):
            found = await self._call(context, lambda: self.azure.get(identity))
            state = ((found or {}).get("properties") or {}).get("provisioningState")
            if state == "Failed":
                await context.abort(grpc.StatusCode.UNKNOWN, f"{identity}: the operation failed")
            if found is None or state in {None, "Succeeded"}:
                break
            await asyncio.sleep(0.01)
        added = {key: value for key, value in (found or {}).get("properties", {}).items() if key not in inputs}
        extra = {"name": identity.rsplit("/", 1)[-1], "location": inputs.get("location")}
        return {**{k: v for k, v in added.items() if isinstance(v, str | dict)}, **inputs, **extra}

    async def _call(self, context: Any, work: Any) -> Any:
        for _ in range(ATTEMPTS):
            try:
                return work()
            except ArmError as error:
                if error.status != 429:
                    await context.abort(grpc.StatusCode.UNKNOWN, str(error))
                await asyncio.sleep(error.retry_after or 0)
        return await context.abort(grpc.StatusCode.UNKNOWN, "429, again and again")


def plain(value: struct_pb2.Struct) -> dict[str, Any]:
    """Without secrets and outputs; what is unknown is UNKNOWN."""
    return {key: _plain(item) for key, item in json_format.MessageToDict(value).items() if not key.startswith("__")}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return _plain(value.get("value"))
        if value.get(SIGNATURE) == OUTPUT:
            return _plain(value["value"]) if "value" in value else UNKNOWN
        return {key: _plain(item) for key, item in value.items()}
    return value


def struct(value: dict[str, Any]) -> struct_pb2.Struct:
    found = struct_pb2.Struct()
    json_format.ParseDict({key: item for key, item in value.items() if item is not None}, found)
    return found


def differences(old: Any, new: Any, path: str = "") -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            where = f"{path}.{key}" if path else key
            if key not in new:
                yield where, "DELETE"
            elif key not in old:
                yield where, "ADD"
            else:
                yield from differences(old[key], new[key], where)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif old != new:
        yield path, "UPDATE"


def _name(urn: str) -> str:
    return urn.split("::", 3)[3]


async def serve() -> None:
    data = Path(os.environ["STANDIN_DATA"])
    azure = Azure(Path(os.environ["STANDIN_FOLDER"]), data, date.fromisoformat(os.environ["STANDIN_TODAY"]))
    server = grpc.aio.server()
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Provider(azure, Tables(data / "arm")), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve())
    sys.exit(0)
