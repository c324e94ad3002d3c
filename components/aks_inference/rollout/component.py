"""The component ControlledRolloutEndpoint."""

from typing import Any, Unpack, overload

import pulumi

from aks_inference.component import NO_ARGS, merged, unknown
from aks_inference.rollout.args import ControlledRolloutEndpointArgs
from aks_inference.rollout.spec import plan_rollout
from aks_inference.service.serving import Serving


class ControlledRolloutEndpoint(Serving):
    """One scoring address, up to six versions: a percentage of the traffic for each, one default, at most one control.

    What no version has goes to the default version, on top of its own share. What is declared is what runs: a version
    that is left out is removed, whichever it was; the declaration that remains names the default.
    """

    scoring_uri: pulumi.Output[str]
    """Where rows are scored (POST, `Authorization: Bearer <key>`); of gRPC containers `grpc[s]://<host>:<port>/<name>`:
    where a channel goes, and what calls name."""
    swagger_uri: pulumi.Output[str]
    """The interface's description."""
    primary_key: pulumi.Output[str]
    """Secret; empty where no key is needed."""
    secondary_key: pulumi.Output[str]
    """Secret; the other key, for rotation."""
    state: pulumi.Output[str]
    """Transitioning, Unhealthy, Unschedulable, Failed or Healthy."""
    effective_traffic: pulumi.Output[dict[str, float]]
    """Percent of the requests by version, what the default gets on top included."""

    @overload
    def __init__(
        self, name: str, args: ControlledRolloutEndpointArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        *,
        opts: pulumi.ResourceOptions | None = None,
        **settings: Unpack[ControlledRolloutEndpointArgs],
    ) -> None: ...

    def __init__(
        self,
        name: str,
        args: ControlledRolloutEndpointArgs = NO_ARGS,
        opts: pulumi.ResourceOptions | None = None,
        **settings: Any,
    ) -> None:
        """Arguments as a dict, or as keywords."""
        declared = merged(args, settings)
        plan, findings = plan_rollout(name, declared)
        findings += self._conflicts(name, declared, plan, "endpoint_name")
        super().__init__(name, declared, findings, opts)
        plan = self._sound(plan)
        outputs = self._serve(name, plan)
        if plan is None:
            self.effective_traffic = unknown(dict[str, float])
            return
        self.effective_traffic = pulumi.Output.from_input(plan.traffic)
        self.register_outputs({**outputs, "effectiveTraffic": self.effective_traffic})
