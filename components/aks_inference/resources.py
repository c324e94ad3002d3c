"""The custom resources that the components register; the plugin (provider/) implements them.

Inputs and outputs are camelCase, as on the wire. A program rarely needs these classes: the components check first.
"""

from collections.abc import Mapping
from typing import Any

import pulumi

from aks_inference._version import PACKAGE, VERSION


class _ProviderResource(pulumi.CustomResource):
    """A custom resource of this package's plugin, pinned to this version."""

    _token: str
    _outputs: tuple[str, ...]
    _secrets: tuple[str, ...] = ()
    """Outputs that are secret also where the plugin generates them."""

    def __init__(self, name: str, props: Mapping[str, Any], opts: pulumi.ResourceOptions | None = None) -> None:
        """`props`: the inputs in camelCase; what is None is left out."""
        inputs = {key: value for key, value in props.items() if value is not None}
        own = pulumi.ResourceOptions(version=VERSION, additional_secret_outputs=list(self._secrets) or None)
        pinned = pulumi.ResourceOptions.merge(own, opts)
        # An output that is also an optional input (a generated key) must be there to be resolved.
        super().__init__(self._token, name, {**dict.fromkeys(self._outputs), **inputs}, pinned)

    def _output(self, name: str) -> pulumi.Output[Any]:
        value: pulumi.Output[Any] = pulumi.get(self, name)
        return value


class LocalRuntime(_ProviderResource):
    """The runtime on this machine. Inputs: `name`, `port`, `stateDirectory`, `haproxy`, `stateWebhook`, `otlpEndpoint`,
    `traceRatio`, `accessLog`, `metricsPort`."""

    _token = f"{PACKAGE}:index:LocalRuntime"
    _outputs = ("target", "url", "stateDirectory")

    @property
    def target(self) -> pulumi.Output[str]:
        """What services name as their target."""
        return self._output("target")

    @property
    def url(self) -> pulumi.Output[str]:
        """The router's address."""
        return self._output("url")

    @property
    def state_directory(self) -> pulumi.Output[str]:
        """Absolute path of what the runtime keeps."""
        return self._output("stateDirectory")


class Model(_ProviderResource):
    """A model version. Inputs: `target` or `store`, `name`, `path`, `childPaths`, `tags`, `properties`, `description`,
    `framework`, `frameworkVersion`, `facts`, `unpack`, `trackingUri`."""

    _token = f"{PACKAGE}:index:Model"
    _outputs = ("version", "modelId", "createdTime")

    @property
    def version(self) -> pulumi.Output[int]:
        """The version that the store gave; a number comes back as a float over the protocol."""
        return self._output("version").apply(int)

    @property
    def model_id(self) -> pulumi.Output[str]:
        """`name:version`."""
        return self._output("modelId")


class StoredModels(_ProviderResource):
    """Models of a store that a version uses. Inputs: `store`, `models` (`name:version` each), `user`, `mounted`."""

    _token = f"{PACKAGE}:index:StoredModels"
    _outputs = ("digests", "images")

    @property
    def digests(self) -> pulumi.Output[list[str]]:
        """Over names and contents of each model, in the order of the models."""
        return self._output("digests")

    @property
    def images(self) -> pulumi.Output[list[str]]:
        """Of each model that is mounted, with its digest; in the order of the models."""
        return self._output("images")


class ImageVolumes(_ProviderResource):
    """Whether a cluster mounts images as volumes. Inputs: `kubeconfig`, `context`."""

    _token = f"{PACKAGE}:index:ImageVolumes"
    _outputs = ()


class ClusterObject(_ProviderResource):
    """What a runtime applies and may have found. Inputs: `kind`, `namespace`, `kubeconfig`, `context`."""

    _token = f"{PACKAGE}:index:ClusterObject"
    _outputs = ("found", "managers", "cluster")


class ClusterKinds(_ProviderResource):
    """Kinds of objects that an argument asks for. Inputs: `argument`, `kinds`, `brings`, `later`, `made`,
    `kubeconfig`, `context`."""

    _token = f"{PACKAGE}:index:ClusterKinds"
    _outputs = ()


class PlainPort(_ProviderResource):
    """What a runtime that gets TLS served without it. Inputs: `namespace`, `issued`, `kubeconfig`, `context`."""

    _token = f"{PACKAGE}:index:PlainPort"
    _outputs = ("untilCertificate",)

    @property
    def until_certificate(self) -> pulumi.Output[bool]:
        """Whether it does until there is a certificate."""
        return self._output("untilCertificate")


class EndpointKeys(_ProviderResource):
    """The keys of an endpoint on a cluster. Inputs: `primaryKey`, `secondaryKey`, `keyVersion`."""

    _token = f"{PACKAGE}:index:EndpointKeys"
    _outputs = ("primaryKey", "secondaryKey", "digests")
    _secrets = _outputs

    @property
    def primary_key(self) -> pulumi.Output[str | None]:
        """Secret."""
        return self._output("primaryKey")

    @property
    def secondary_key(self) -> pulumi.Output[str | None]:
        """Secret."""
        return self._output("secondaryKey")

    @property
    def digests(self) -> pulumi.Output[str]:
        """Secret. SHA-256 hex digests of both, one a line."""
        return self._output("digests")


class EndpointName(_ProviderResource):
    """That an endpoint's name on a cluster is free. Inputs: `name`, `namespace`, `kubeconfig`, `context`."""

    _token = f"{PACKAGE}:index:EndpointName"
    _outputs = ()


class Image(_ProviderResource):
    """An image, found or built. Inputs: those of `aks-inference:index:Image`."""

    _token = f"{PACKAGE}:index:Image"
    _outputs = ("image",)

    @property
    def image(self) -> pulumi.Output[str]:
        """The image with its digest."""
        return self._output("image")


class TrainingRun(_ProviderResource):
    """One run of a training script. Inputs: those of `aks-inference:index:TrainingRun`."""

    _token = f"{PACKAGE}:index:TrainingRun"
    _outputs = ("runId", "outputsPath", "logPath", "exitCode", "seconds")

    @property
    def run_id(self) -> pulumi.Output[str]:
        """The run's name."""
        return self._output("runId")

    @property
    def outputs_path(self) -> pulumi.Output[str]:
        """Folder with what the script wrote into ./outputs."""
        return self._output("outputsPath")

    @property
    def log_path(self) -> pulumi.Output[str]:
        """File with its log."""
        return self._output("logPath")


class LocalEndpoint(_ProviderResource):
    """A served endpoint. Inputs: `target`, `endpoint` (ScoringEndpoint as JSON), `effectiveTraffic`, `primaryKey`,
    `secondaryKey`, `timeoutSeconds`."""

    _token = f"{PACKAGE}:index:LocalEndpoint"
    _outputs = ("scoringUri", "swaggerUri", "primaryKey", "secondaryKey", "state")
    _secrets = ("primaryKey", "secondaryKey")

    @property
    def scoring_uri(self) -> pulumi.Output[str]:
        """Where rows are scored."""
        return self._output("scoringUri")

    @property
    def swagger_uri(self) -> pulumi.Output[str]:
        """The interface's description."""
        return self._output("swaggerUri")

    @property
    def primary_key(self) -> pulumi.Output[str | None]:
        """Secret; None where keys are not used."""
        return self._output("primaryKey")

    @property
    def secondary_key(self) -> pulumi.Output[str | None]:
        """Secret; None where keys are not used."""
        return self._output("secondaryKey")

    @property
    def state(self) -> pulumi.Output[str]:
        """One of Azure ML's five states."""
        return self._output("state")
