"""What Azure Monitor refuses of data collection: no table of its API is among the data, so its form stands here.

Written from the documents of Container insights and managed Prometheus; nothing here knows the package that is judged.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Body = Mapping[str, Any]
ENDPOINT, RULE = "Microsoft.Insights/DataCollectionEndpoint", "Microsoft.Insights/DataCollectionRule"
ASSOCIATION = "Microsoft.Insights/DataCollectionRuleAssociation"
FIELDS = {
    ENDPOINT: {"location", "tags", "kind", "networkAcls", "description", "identity"},
    RULE: {
        "location", "tags", "kind", "dataCollectionEndpointId", "dataSources", "destinations", "dataFlows",
        "streamDeclarations", "description", "identity",
    },
    ASSOCIATION: {"dataCollectionRuleId", "dataCollectionEndpointId", "description"},
}  # fmt: skip
SOURCES = {"extensions", "prometheusForwarder", "performanceCounters", "syslog", "logFiles", "dataImports"}
DESTINATIONS = {
    "logAnalytics": ("workspaceResourceId", "microsoft.operationalinsights/workspaces"),
    "monitoringAccounts": ("accountResourceId", "microsoft.monitor/accounts"),
}
"""Kind → the property that names the resource, and its type."""


def problems(arm_type: str, body: Body, found: Callable[[str], Body | None]) -> Iterator[str]:
    """What is wrong with a body. `found`: a resource of this Azure by its id."""
    if arm_type not in FIELDS:
        return
    yield from (f"unknown property {name}" for name in body if name not in FIELDS[arm_type])
    if arm_type == ENDPOINT:
        allowed = {"Enabled", "Disabled", "SecuredByPerimeter"}
        if (body.get("networkAcls") or {}).get("publicNetworkAccess", "Enabled") not in allowed:
            yield "networkAcls.publicNetworkAccess"
    elif arm_type == RULE:
        yield from _rule(body, found)
    else:
        yield from _association(body, found)


def _rule(body: Body, found: Callable[[str], Body | None]) -> Iterator[str]:
    if not body.get("location"):
        yield "location is required"
    yield from _sources(body)
    yield from _destinations(body)
    yield from _flows(body)
    endpoint = body.get("dataCollectionEndpointId")
    if endpoint is not None:
        there = found(endpoint)
        if there is None:
            yield f"the endpoint {endpoint} does not exist"
        elif there["body"].get("location") != body.get("location"):
            yield "endpoint and rule are in different regions"


def _sources(body: Body) -> Iterator[str]:
    for kind, sources in (body.get("dataSources") or {}).items():
        if kind not in SOURCES:
            yield f"dataSources.{kind} is not known"
        if kind == "prometheusForwarder" and not body.get("dataCollectionEndpointId"):
            yield "prometheusForwarder needs dataCollectionEndpointId"
        for source in sources:
            if not source.get("name") or not source.get("streams"):
                yield f"dataSources.{kind}: name and streams are required"
            if kind == "extensions" and not source.get("extensionName"):
                yield "dataSources.extensions: extensionName is required"


def _destinations(body: Body) -> Iterator[str]:
    for kind, places in (body.get("destinations") or {}).items():
        if kind not in DESTINATIONS:
            yield f"destinations.{kind} is not known"
            continue
        key, wanted = DESTINATIONS[kind]
        for place in places:
            if not re.search(f"/providers/{wanted}/[^/]+$", str(place.get(key)).lower()):
                yield f"destinations.{kind}.{key} is no {wanted}"


def _flows(body: Body) -> Iterator[str]:
    sources = [one for each in (body.get("dataSources") or {}).values() for one in each]
    streams = {stream for source in sources for stream in source.get("streams") or ()}
    names = {place.get("name") for places in (body.get("destinations") or {}).values() for place in places}
    flows = body.get("dataFlows") or ()
    if not flows:
        yield "dataFlows is required"
    for flow in flows:
        yield from (f"dataFlows: no destination {one!r}" for one in flow.get("destinations") or () if one not in names)
        yield from (f"dataFlows: no source of {one!r}" for one in flow.get("streams") or () if one not in streams)


def _association(body: Body, found: Callable[[str], Body | None]) -> Iterator[str]:
    rule, endpoint = body.get("dataCollectionRuleId"), body.get("dataCollectionEndpointId")
    if (rule is None) == (endpoint is None):
        yield "one of dataCollectionRuleId and dataCollectionEndpointId is required"
    for one in (rule, endpoint):
        if one is not None and found(one) is None:
            yield f"{one} does not exist"
