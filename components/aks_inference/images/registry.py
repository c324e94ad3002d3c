"""The registry of a cluster: its rules."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aks_inference.findings import Finding, under
from aks_inference.values import Flag, Leaf, Spec, Text, Texts, read
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.target import RegistrySettings

BUILDERS = ("auto", "assemble", "buildah", "podman", "buildx", "acr-tasks")
TIERS = ("Basic", "Standard", "Premium")


class RegistrySpec(Spec):
    """The arguments, converted."""

    server: Text | None = None
    shared_registries: Texts = ()
    tier: Text | None = None
    username: Leaf | None = None
    password: Leaf | None = None
    ca_file: Text | None = None
    plain_http: Flag = False
    base_image: Text | None = None
    builder: Text | None = None
    resource_id: Text | None = None
    build_arguments: Texts = ()


@dataclass(frozen=True)
class RegistryPlan:
    """A registry, with the login beside it: that may be known only later, and is secret."""

    settings: RegistrySettings
    login: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """`username` and `password`, or nothing."""


def plan_registry(given: Mapping[str, Any]) -> tuple[RegistryPlan | None, list[Finding]]:
    """The plan, or what is wrong; paths begin with `registry`."""
    # Loaded here: who gives images by name does not wait for what talks to registries.
    from aks_inference_runtime.images.lookup import RegistryPlace
    from aks_inference_runtime.images.reference import ImageReference

    got = read(RegistrySpec, given, ("server",))
    spec, findings = got.spec, list(got.findings)
    places = {("server",): spec.server} | {
        ("shared_registries", n): one for n, one in enumerate(spec.shared_registries)
    }
    for path, server in places.items():
        try:
            RegistryPlace.parse(server) if server is not None else None
        except InvalidInput as error:
            rule, _, mend = str(error).partition(" is not ")[2].partition("; ")
            findings.append(Finding(path, f"is not {rule}", mend, server))
    if spec.base_image is not None:
        try:
            ImageReference.parse(spec.base_image)
        except InvalidInput as error:
            rule, _, mend = str(error).partition(" is not ")[2].partition("; ")
            findings.append(Finding(("base_image",), f"is not {rule}", mend, spec.base_image))
    for name, value, known in (("tier", spec.tier, TIERS), ("builder", spec.builder, BUILDERS)):
        if value is not None and value not in known:
            findings.append(Finding((name,), "is not known", f"use {', '.join(known)}", value))
    findings += _tasks_rules(spec)
    if (spec.username is None) != (spec.password is None) and got.whole("username", "password"):
        missing = "password" if spec.password is None else "username"
        findings.append(Finding((missing,), "is missing", "give @username and @password together"))
    if findings or spec.server is None:
        return None, list(under(("registry",), findings))
    plain = {name: getattr(spec, name) for name in RegistrySpec.model_fields if name not in ("username", "password")}
    login = {"username": spec.username, "password": spec.password} if spec.username is not None else {}
    return RegistryPlan(RegistrySettings(**plain), login), []


def _tasks_rules(spec: RegistrySpec) -> Iterator[Finding]:
    """ACR Tasks build in a registry of Azure's."""
    from aks_inference_runtime.images.build.acr import of_azure, resource_problem

    if spec.resource_id is not None:
        if problem := resource_problem(spec.resource_id):
            yield Finding(("resource_id",), problem, "give the id of the registry in Azure", spec.resource_id)
        return
    if spec.builder == "acr-tasks" and spec.server is not None and not of_azure(spec.server.partition("/")[0]):
        rule = "builds in a registry of Azure's, and @server is none (…azurecr.io)"
        yield Finding(("builder",), rule, "choose another builder, or give the registry's @resource_id", spec.builder)
