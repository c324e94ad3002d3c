"""A custom image: any container that answers HTTP or gRPC, behind the router like every other replica."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from aks_inference.findings import Finding, under
from aks_inference.images.environment import plain_texts
from aks_inference.service.environment import ReadEnvironment
from aks_inference.service.inference import Inference
from aks_inference.service.settings import PORT, Port
from aks_inference.service.shared_memory import read_size
from aks_inference.values import Flag, Leaf, Leaves, Read, Spec, Text, Texts, Whole, is_late, read
from aks_inference_runtime.api.endpoint import Code, Container, Environment, Protocol

LATER = "known when it is applied"
"""Stands for an image that is an output, where a text is asked for."""


class CustomImageSpec(Spec):
    """The arguments, converted."""

    image: Leaf | None = None
    port: Port | None = Field(None, description=PORT)
    protocol: Protocol = Field(Protocol.HTTP, description="use http or grpc")
    score_path: Text | None = None
    health_path: Text | None = None
    health_port: Port | None = Field(None, description=PORT)
    swagger_path: Text | None = None
    command: Texts = ()
    arguments: Texts = ()
    environment_variables: Leaves
    user: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = Field(None, description="use a number above 0")
    writable: Flag = False
    shm_size: Text | None = None


@dataclass(frozen=True)
class CustomImage:
    """What a replica runs in place of the scoring server."""

    image: Any
    """A text, or an output of one."""
    container: Container
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    user: int | None = None
    writable: bool = False
    shared_memory: int | None = None
    """MiB; None: the node's own."""
    variables: Mapping[str, str] = field(default_factory=dict)
    late_variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inference(self) -> Inference:
        """What takes the place of code and environment: the container has both."""
        told = [LATER if is_late(self.image) else self.image, self.command, self.arguments, self.user, self.writable]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        environment = Environment(environment_variables=dict(self.variables))
        return Inference(
            Code(entry_script="", digest=f"sha256:{digest}"), ReadEnvironment(environment, self.late_variables)
        )


def read_custom(given: Mapping[str, Any]) -> tuple[CustomImage | None, list[Finding]]:
    """The custom image, and what is wrong; paths begin with `custom_image`."""
    got = read(CustomImageSpec, given, ("image", "port"))
    spec = got.spec
    findings = [*got.findings, *_rules(spec)]
    if got.whole("protocol"):
        findings += _protocol_rules(got)
    shared_memory, wrong = read_size(spec.shm_size)
    findings += under(("shm_size",), wrong)
    if findings or spec.port is None:
        return None, list(under(("custom_image",), findings))
    grpc = spec.protocol is Protocol.GRPC
    given_paths = {"score_path": spec.score_path, "swagger_path": spec.swagger_path, "health_path": spec.health_path}
    container = Container.model_validate(
        {
            "image": LATER if is_late(spec.image) else spec.image,
            "port": spec.port,
            "protocol": spec.protocol,
            "health_port": spec.health_port,
            "health_protocol": Protocol.GRPC if grpc and spec.health_path is None else Protocol.HTTP,
            **{name: path for name, path in given_paths.items() if path is not None},
        }
    )
    variables = spec.environment_variables
    return CustomImage(
        image=spec.image,
        container=container,
        command=spec.command,
        arguments=spec.arguments,
        user=spec.user,
        writable=spec.writable,
        shared_memory=shared_memory,
        variables=plain_texts({name: value for name, value in variables.items() if not is_late(value)}),
        late_variables={name: value for name, value in variables.items() if is_late(value)},
    ), []


def _protocol_rules(got: Read[CustomImageSpec]) -> Iterator[Finding]:
    """What goes with what it speaks."""
    spec = got.spec
    if spec.protocol is Protocol.HTTP:
        if spec.score_path is None and got.whole("score_path"):
            yield Finding(("score_path",), "is required", "add `@score_path`")
        return
    for name in ("score_path", "swagger_path"):
        if (path := getattr(spec, name)) is not None:
            yield Finding((name,), 'has no use with @protocol "grpc": calls name their methods', "leave it out", path)
    if spec.health_path is not None and got.whole("port", "health_port") and spec.health_port in (None, spec.port):
        rule = f"cannot be asked for at port {spec.port}, which speaks gRPC"
        mend = "add a @health_port that answers HTTP, or leave it out for gRPC's health checking protocol"
        yield Finding(("health_path",), rule, mend, spec.health_path)


def _rules(spec: CustomImageSpec) -> Iterator[Finding]:
    for name in ("score_path", "health_path", "swagger_path"):
        path = getattr(spec, name)
        if path is not None and not path.startswith("/"):
            yield Finding((name,), "is no path", "begin it with /", path)
    if spec.image is not None and not is_late(spec.image):
        from aks_inference_runtime.api.errors import InvalidInput
        from aks_inference_runtime.images.reference import ImageReference

        try:
            ImageReference.parse(spec.image)
        except InvalidInput as error:
            rule, _, mend = str(error).partition(" is not ")[2].partition("; ")
            yield Finding(("image",), f"is not {rule}", mend, spec.image)
