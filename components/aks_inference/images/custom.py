"""A custom image: any container that answers HTTP, behind the router like every other replica."""

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
from aks_inference.values import Flag, Leaf, Leaves, Spec, Text, Texts, Whole, is_late, read
from aks_inference_runtime.api.endpoint import Code, Container, Environment

LATER = "known when it is applied"
"""Stands for an image that is an output, where a text is asked for."""


class CustomImageSpec(Spec):
    """The arguments, converted."""

    image: Leaf | None = None
    port: Port | None = Field(None, description=PORT)
    score_path: Text | None = None
    health_path: Text = "/"
    health_port: Port | None = Field(None, description=PORT)
    swagger_path: Text = "/swagger.json"
    command: Texts = ()
    arguments: Texts = ()
    environment_variables: Leaves
    user: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = Field(None, description="use a number above 0")
    writable: Flag = False


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
    got = read(CustomImageSpec, given, ("image", "port", "score_path"))
    spec = got.spec
    findings = [*got.findings, *_rules(spec)]
    if findings or spec.port is None or spec.score_path is None:
        return None, list(under(("custom_image",), findings))
    container = Container(
        image=LATER if is_late(spec.image) else spec.image,
        port=spec.port,
        score_path=spec.score_path,
        swagger_path=spec.swagger_path,
        health_path=spec.health_path,
        health_port=spec.health_port,
    )
    variables = spec.environment_variables
    return CustomImage(
        image=spec.image,
        container=container,
        command=spec.command,
        arguments=spec.arguments,
        user=spec.user,
        writable=spec.writable,
        variables=plain_texts({name: value for name, value in variables.items() if not is_late(value)}),
        late_variables={name: value for name, value in variables.items() if is_late(value)},
    ), []


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
