"""Arguments about registries and custom images, as they come over the wire."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import pulumi


class RegistryArgs(TypedDict):
    """Where images are looked up, and built to when they are nowhere."""

    server: str
    """Required. The workspace's registry: `host`, or `host/repository` for images of environments. Those of services
    and the runtime go to `repository-services` and `repository-runtime` then, else all below `aks-inference/`."""
    shared_registries: NotRequired[Sequence[str] | None]
    """Optional. Registries that are asked after it, in order. Default: none."""
    tier: NotRequired[str | None]
    """Optional. Basic, Standard or Premium: a note on pull time for Basic. Default: not known."""
    username: NotRequired[pulumi.Input[str] | None]
    """Optional. User name for `server`; with `password`. Default: the logins of `docker login` where the stack is
    applied."""
    password: NotRequired[pulumi.Input[str] | None]
    """Optional. Secret. Of `username`."""
    ca_file: NotRequired[str | None]
    """Optional. PEM file of certificate authorities to trust beside the machine's. Default: none."""
    plain_http: NotRequired[bool | None]
    """Optional. The registry has no TLS. Default: false; one of this machine has none."""
    base_image: NotRequired[str | None]
    """Optional. Base of images whose environment names none, and of the runtime's. Default: the official Python image
    of the wanted version."""
    builder: NotRequired[str | None]
    """Optional. `auto`, `assemble` (our own, without a build tool), `buildah`, `podman`, `buildx` or `acr-tasks` (in
    Azure, with the credentials of the stack). Default: auto."""
    resource_id: NotRequired[str | None]
    """Optional. Id of `server` in Azure, for `acr-tasks`. Default: looked up in the subscription of the credentials."""
    build_arguments: NotRequired[Sequence[str] | None]
    """Optional. Further arguments of a build tool. Default: none."""


class CustomImageArgs(TypedDict):
    """Any container that answers HTTP or gRPC: KServe, Triton, MLServer, vLLM, BentoML, or one of your own."""

    image: pulumi.Input[str]
    """Required. The image, with tag or digest."""
    port: int
    """Required. Where it listens."""
    protocol: NotRequired[str | None]
    """Optional. What it speaks at `port`: `http`, or `grpc` (HTTP/2 in clear), whose callers name the service in the
    metadata `x-aks-inference-endpoint`. Default: http."""
    score_path: NotRequired[str | None]
    """Optional. Required with `http`: what requests to the scoring URI become in the container, such as
    `/v2/models/m/infer`. None with `grpc`: calls name their methods. Default: none."""
    health_path: NotRequired[str | None]
    """Optional. What answers 200 once it can score; with `grpc` at a `health_port` of its own. Default: /, with `grpc`
    gRPC's health checking protocol."""
    health_port: NotRequired[int | None]
    """Optional. Port that is asked for its health. Default: `port`."""
    swagger_path: NotRequired[str | None]
    """Optional. Where it describes its interface; none with `grpc`. Default: /swagger.json."""
    command: NotRequired[Sequence[str] | None]
    """Optional. In place of the image's own entry point. Default: the image's."""
    arguments: NotRequired[Sequence[str] | None]
    """Optional. In place of the image's own arguments. Default: the image's."""
    environment_variables: NotRequired[Mapping[str, pulumi.Input[str]] | None]
    """Optional. Of the container. Default: none."""
    user: NotRequired[int | None]
    """Optional. Number of the user that it runs as, never 0. Default: 10001."""
    writable: NotRequired[bool | None]
    """Optional. Whether the container may write outside of `/tmp`. Default: false."""
    shm_size: NotRequired[str | None]
    """Optional. Shared memory (`/dev/shm`), such as `2g`; what is in it counts as memory of the replica. Default: the
    node's, mostly 64 MB."""
