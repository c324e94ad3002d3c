"""A stand-in of the supervisor with the real wire objects: a test decides what a deployment does."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from aks_inference_runtime.api.content import combined_digest, file_digest, model_files
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.errors import AksInferenceError, Conflict, NotFound
from aks_inference_runtime.api.problems import HTTP_STATUS, to_problem
from aks_inference_runtime.api.status import EndpointStatus, EndpointView, ModelRecord, ServiceState, VersionStatus
from aks_inference_runtime.api.supervisor import (
    API_PREFIX,
    EndpointKeys,
    EndpointSubmission,
    LocalSettings,
    ModelRegistration,
    SupervisorInfo,
)
from aks_inference_runtime.api.target import LocalTarget, format_target


@dataclass
class StandIn:
    """A supervisor of which a test decides what its deployments come to."""

    directory: Path
    socket: Path
    port: int = 8890
    becomes: ServiceState = ServiceState.HEALTHY
    """What a declared endpoint is at once; TRANSITIONING: it never gets further."""
    message: str = ""
    models: dict[tuple[str, int], ModelRecord] = field(default_factory=dict)
    has_stored: bool = True
    """Whether a model `stored:1` is there, which endpoints may name without registering it."""
    endpoints: dict[str, tuple[ScoringEndpoint, int]] = field(default_factory=dict)
    keys: dict[str, EndpointKeys] = field(default_factory=dict)
    used: set[tuple[str, int]] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    down: dict[str, bool] | None = None
    """What it was told at the end."""

    @property
    def target(self) -> str:
        return format_target(LocalTarget(name="local", state_directory=str(self.directory), port=self.port))

    def settings(self) -> LocalSettings:
        return LocalSettings(name="local", state_directory=str(self.directory), port=self.port)

    def info(self) -> SupervisorInfo:
        return SupervisorInfo(
            name="local",
            pid=1,
            started=0,
            version="0",
            url=f"http://127.0.0.1:{self.port}",
            port=self.port,
            state_directory=str(self.directory),
            socket=str(self.socket),
        )

    def put_model(self, m: ModelRegistration) -> ModelRecord:
        files = {name: file_digest(path) for name, path in model_files(Path(m.source_path), m.child_paths).items()}
        digest = combined_digest(files)
        mutable = {"tags": m.tags, "description": m.description}
        versions = sorted(version for name, version in self.models if name == m.name)
        for version in versions:
            record = self.models[m.name, version]
            identity = (record.digest, record.properties, record.framework, record.framework_version)
            if identity == (digest, m.properties, m.framework, m.framework_version):
                self.models[m.name, version] = record.model_copy(update=mutable)
                return self.models[m.name, version]
        record = ModelRecord(
            name=m.name,
            version=max(versions, default=0) + 1,
            digest=digest,
            files=files,
            created_time="2026-01-01T00:00:00Z",
            framework=m.framework,
            framework_version=m.framework_version,
            properties=m.properties,
            tags=m.tags,
            description=m.description,
        )
        self.models[m.name, record.version] = record
        return record

    def delete_model(self, name: str, version: int) -> None:
        if (name, version) not in self.models:
            raise NotFound(f"no model {name}:{version}")
        if (name, version) in self.used:
            raise Conflict(f"model {name}:{version} is used by endpoint svc")
        del self.models[name, version]

    def put_endpoint(self, s: EndpointSubmission) -> EndpointStatus:
        name = s.endpoint.metadata.name
        old, generation = self.endpoints.get(name, (None, 0))
        present = self.keys.get(name) or EndpointKeys(primary_key="generated-1", secondary_key="generated-2")
        keys = EndpointKeys(
            primary_key=s.primary_key or present.primary_key, secondary_key=s.secondary_key or present.secondary_key
        )
        if (old, self.keys.get(name)) != (s.endpoint, keys):
            generation += 1
        self.endpoints[name] = (s.endpoint, generation)
        self.keys[name] = keys
        return self.status(name)

    def status(self, name: str) -> EndpointStatus:
        endpoint, generation = self.endpoints[name]
        served = generation if self.becomes is ServiceState.HEALTHY else generation - 1
        return EndpointStatus(
            name=name,
            state=self.becomes,
            generation=generation,
            observed_generation=served,
            message=self.message,
            versions=tuple(VersionStatus(name=v.name, state=self.becomes) for v in endpoint.spec.versions),
        )

    def view(self, name: str) -> EndpointView:
        if name not in self.endpoints:
            raise NotFound(f"no endpoint {name}")
        return EndpointView(endpoint=self.endpoints[name][0], status=self.status(name))

    def delete_endpoint(self, name: str) -> None:
        self.view(name)
        del self.endpoints[name], self.keys[name]


def application(stand_in: StandIn) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        stand_in.calls.append(f"{request.method} {request.path.removeprefix(API_PREFIX)}")
        body = await request.text()
        parts = request.path.removeprefix(API_PREFIX).strip("/").split("/")
        try:
            found = _route(stand_in, request.method, parts, body)
        except AksInferenceError as error:
            return web.json_response(to_problem(error).to_wire(), status=HTTP_STATUS[type(error)])
        return web.json_response(found)

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    return application


def _route(s: StandIn, method: str, parts: list[str], body: str) -> Any:
    match method, parts:
        case "GET", ["info"]:
            return s.info().to_wire()
        case "POST", ["shutdown"]:
            s.down = json.loads(body)
            return None
        case "POST", ["models"]:
            return s.put_model(ModelRegistration.model_validate_json(body)).to_wire()
        case "GET", ["models"]:
            first = ModelRecord(name="stored", version=1, digest="sha256:0")
            return [record.to_wire() for record in [*([first] if s.has_stored else []), *s.models.values()]]
        case "GET", ["models", name, version]:
            return s.models[name, int(version)].to_wire()
        case "DELETE", ["models", name, version]:
            return s.delete_model(name, int(version))
        case "PUT", ["endpoints", _]:
            return s.put_endpoint(EndpointSubmission.model_validate_json(body)).to_wire()
        case "GET", ["endpoints", name]:
            return s.view(name).to_wire()
        case "DELETE", ["endpoints", name]:
            return s.delete_endpoint(name)
        case "GET", ["endpoints", name, "keys"]:
            return s.keys[name].to_wire()
    raise NotFound(f"no such call: {method} {parts}")
