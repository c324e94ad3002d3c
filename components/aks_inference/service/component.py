"""The component ModelWebService."""

from typing import Any, Unpack, overload

import pulumi

from aks_inference.component import NO_ARGS, merged
from aks_inference.service.args import ModelWebServiceArgs
from aks_inference.service.serving import Serving
from aks_inference.service.spec import plan_service


class ModelWebService(Serving):
    """A service: models and an entry script behind one address, with replicas, keys and autoscaling."""

    scoring_uri: pulumi.Output[str]
    """Where rows are scored (POST, `Authorization: Bearer <key>`); of a gRPC container `grpc[s]://<host>:<port>/<name>`:
    where a channel goes, and what calls name."""
    swagger_uri: pulumi.Output[str]
    """The interface's description."""
    primary_key: pulumi.Output[str]
    """Secret; empty where no key is needed."""
    secondary_key: pulumi.Output[str]
    """Secret; the other key, for rotation."""
    state: pulumi.Output[str]
    """Transitioning, Unhealthy, Unschedulable, Failed or Healthy."""

    @overload
    def __init__(self, name: str, args: ModelWebServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None: ...

    @overload
    def __init__(
        self, name: str, *, opts: pulumi.ResourceOptions | None = None, **settings: Unpack[ModelWebServiceArgs]
    ) -> None: ...

    def __init__(
        self,
        name: str,
        args: ModelWebServiceArgs = NO_ARGS,
        opts: pulumi.ResourceOptions | None = None,
        **settings: Any,
    ) -> None:
        """Arguments as a dict, or as keywords."""
        declared = merged(args, settings)
        plan, findings = plan_service(name, declared)
        findings += self._conflicts(name, declared, plan, "service_name")
        super().__init__(name, declared, findings, opts)
        plan = self._sound(plan)
        outputs = self._serve(name, plan)
        if plan is not None:
            self.register_outputs(outputs)
