"""Arguments of ModelWebService, as they come over the wire.

Names, units and defaults are those of Azure ML's AksWebservice.deploy_configuration. Structure, counts and switches
are plain; texts that other resources give may be outputs. (Documentation of inherited fields does not reach the
schema, so VersionArgs repeats what both have; a test keeps them the same.)
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import pulumi

from aks_inference.images.args import CustomImageArgs

if TYPE_CHECKING:
    from aks_inference.component import Cluster
    from aks_inference.registered_model.component import RegisteredModel

    Target = pulumi.Input[str] | Cluster
    ModelInput = pulumi.Input[str] | RegisteredModel
else:
    # The schema knows neither unions nor components of the same package; Python programs may pass them.
    Target = pulumi.Input[str]
    ModelInput = pulumi.Input[str]


class EnvironmentArgs(TypedDict):
    """A Python environment: Azure ML's environment object, with `pip_packages` as its short form."""

    name: NotRequired[str | None]
    """Optional. For people; the identity of an environment is its content. Given alone, the name of a curated one:
    `AzureML-Minimal`, `AzureML-ScikitLearn`, `AzureML-Onnx`, `AzureML-XGBoost`, `AzureML-LightGBM`."""
    clone_of: NotRequired[str | None]
    """Optional. A curated environment whose packages this one has, beside its own. Default: none."""
    version: NotRequired[str | None]
    """Optional. For people."""
    pip_packages: NotRequired[Sequence[str] | None]
    """Optional. Requirements such as `scikit-learn==1.9.0`. The scoring server is added. Default: none."""
    environment_variables: NotRequired[Mapping[str, pulumi.Input[str]] | None]
    """Optional. For the scoring server's process. Default: none."""
    python: NotRequired[Any]
    """Optional. `condaDependencies` or `condaDependenciesFile`; without an image with Python and pip packages only."""
    docker: NotRequired[Any]
    """Optional. Base image, Dockerfile, build context, steps, private registry, of images that are built; elsewhere
    accepted as far as it asks for nothing that a process on this machine has not. `shm_size`: of pods, such as `2g`."""
    spark: NotRequired[Any]
    """Optional. Accepted when empty."""
    databricks: NotRequired[Any]
    """Optional. Accepted when empty."""
    r: NotRequired[Any]
    """Optional. Accepted when empty."""
    inferencing_stack_version: NotRequired[str | None]
    """Optional. Accepted, without effect: the scoring server comes from the environment."""
    asset_id: NotRequired[str | None]
    """Optional. Accepted, without effect: the content is the identity."""


class InferenceConfigArgs(TypedDict):
    """What a version runs: the keys of inferenceconfig.json."""

    entry_script: str
    """Required. Python file with `init()` and `run(data)`, relative to `source_directory` where that is given."""
    source_directory: NotRequired[str | None]
    """Optional. Folder of all files that the script needs, relative to the working directory of the program or
    absolute. What its `.amlignore` (else its `.gitignore`) names is none of them. Default: the script alone."""
    environment: NotRequired[EnvironmentArgs | None]
    """Optional. Default: an environment with the scoring server only."""
    description: NotRequired[str | None]
    """Optional. For people."""
    max_mb: NotRequired[int | None]
    """Optional. Where an image is built: the most that `source_directory`, and a build context, may hold without what
    they ignore, MB. Elsewhere more is a warning. Default: 300."""
    max_files: NotRequired[int | None]
    """Optional. The same for the number of files. Default: 2,000."""
    runtime: NotRequired[str | None]
    """Optional. Old form, `python` only; not with `environment`."""
    conda_file: NotRequired[str | None]
    """Optional. Old form: a conda definition, relative to `source_directory`; not with `environment`."""
    extra_docker_file_steps: NotRequired[str | None]
    """Optional. Old form; only where an image is built."""
    enable_gpu: NotRequired[Any]
    """Optional. Old form; refused: CUDA comes with the base image."""
    base_image: NotRequired[str | None]
    """Optional. Old form; only where an image is built."""
    base_image_registry: NotRequired[Any]
    """Optional. Old form; only where an image is built."""
    cuda_version: NotRequired[str | None]
    """Optional. Old form; refused: CUDA comes with the base image."""


if TYPE_CHECKING:
    InferenceInput = InferenceConfigArgs | str
else:
    InferenceInput = InferenceConfigArgs


class ModelWebServiceArgs(TypedDict):
    """A service: models, what to run, where, and how."""

    target: Target
    """Required. Where it runs: the `target` output of a cluster; in Python also the cluster itself."""
    service_name: NotRequired[str | None]
    """Optional. 3 to 32 lower-case letters, digits and dashes, first a letter, last a letter or digit; unique on the
    target. Default: the resource's name."""
    models: NotRequired[Sequence[ModelInput] | None]
    """Optional. Ids `name:version` (the `model_id` output); in Python also RegisteredModel components. At most 1,000.
    Default: none, the files beside the script."""
    inference_config: NotRequired[InferenceInput | None]
    """Conditional. The script and its environment; in Python also the path of an inferenceconfig.json. This or
    `inference_config_file` is required."""
    inference_config_file: NotRequired[str | None]
    """Conditional. Path of an inferenceconfig.json."""
    deployment_config: NotRequired[Any]
    """Optional. Path (from the program's working directory) or content of a deploymentconfig.json of `computeType` aks,
    of a service also local (a `port` alone), of a version also aksendpoint. Its settings count like arguments; one that
    is given both ways is refused. What the versions of an endpoint share (`authEnabled`, `keys`, `namespace` …) a
    version's file says of the endpoint."""
    cpu_cores: NotRequired[float | None]
    """Optional. Cores that a replica asks for. Default: 0.1."""
    cpu_cores_limit: NotRequired[float | None]
    """Optional. Cores that a replica may use, at least `cpu_cores`. The local target takes whole
    numbers (the replica runs on so many of the machine's cores) and refuses others. Default: no
    limit."""
    memory_gb: NotRequired[float | None]
    """Optional. Memory that a replica asks for, GB. Default: 0.5."""
    memory_gb_limit: NotRequired[float | None]
    """Optional. Memory that a replica may use, GB (2^30 bytes), at least `memory_gb`. A replica
    that uses more is ended (OOMKilled) and started again. Default: no limit."""
    gpu_cores: NotRequired[int | None]
    """Optional. Whole GPUs of a replica; the local target has none. Default: 0."""
    spot: NotRequired[bool | None]
    """Optional. On a cluster: replicas may also run on spot nodes, whose taint they bear. Azure takes these back within
    30 seconds: requests that take longer are lost with them, replicas wait for other nodes. Default: false."""
    num_replicas: NotRequired[int | None]
    """Optional. A fixed number of replicas; not with autoscaling. Default: none, so autoscaling."""
    autoscale_enabled: NotRequired[bool | None]
    """Optional. Default: true unless `num_replicas` is given. The other autoscale settings need it set to true."""
    autoscale_min_replicas: NotRequired[int | None]
    """Optional. At least 1, or 0 with `scale_to_zero`. Default: 1, or 0 with `scale_to_zero`."""
    autoscale_max_replicas: NotRequired[int | None]
    """Optional. Default: 10."""
    autoscale_refresh_seconds: NotRequired[float | None]
    """Optional. Seconds between two decisions. Default: 1."""
    autoscale_target_utilization: NotRequired[float | None]
    """Optional. Percent of busy replicas to keep, above 0 and up to 100. Default: 70."""
    autoscale_scale_down_delay_seconds: NotRequired[float | None]
    """Optional. Not in Azure ML: how long fewer replicas must have been enough before some go. Default: 60."""
    scale_to_zero: NotRequired[bool | None]
    """Optional. Not in Azure ML: no replica while there are no requests; the first then wait for one, up to
    `cold_start_timeout_ms`. Default: false."""
    scoring_timeout_ms: NotRequired[int | None]
    """Optional. Milliseconds until a request is answered with 504. Default: 60,000."""
    replica_max_concurrent_requests: NotRequired[int | None]
    """Optional. Requests at once on a replica, never more. Default: 1."""
    max_request_wait_time: NotRequired[int | None]
    """Optional. Milliseconds that a request waits for a replica; then 503. Default: 500."""
    max_queued_requests: NotRequired[int | None]
    """Optional. Not in Azure ML: waiting requests, up to 10,000, which is what one router holds of all versions whose
    queues it has; beyond them 429. Default: 1,000."""
    cold_start_timeout_ms: NotRequired[int | None]
    """Optional. Not in Azure ML: milliseconds that requests wait for the first replica when scaled to zero. Default:
    60,000."""
    image: NotRequired[str | None]
    """Optional. Kubernetes target only: image of the replicas, with the packages of the environment and the scoring
    server; the code travels beside it. Default: the environment's with the code, found in the runtime's `registry` or
    built and pushed there."""
    custom_image: NotRequired[CustomImageArgs | None]
    """Optional. Kubernetes target only: any container that answers HTTP or gRPC, in place of `inference_config`.
    Default: none."""
    container_port: NotRequired[int | None]
    """Optional. Kubernetes target only: port of the scoring server in the image. Default: 5001."""
    score_path: NotRequired[str | None]
    """Optional. Kubernetes target only: where the server scores. Default: /score."""
    swagger_path: NotRequired[str | None]
    """Optional. Kubernetes target only: where it describes itself. Default: /swagger.json."""
    health_path: NotRequired[str | None]
    """Optional. Kubernetes target only: what answers 200 once it can score. Default: /."""
    health_port: NotRequired[int | None]
    """Optional. Kubernetes target only: port of `health_path`. Default: `container_port`."""
    service_account_name: NotRequired[str | None]
    """Optional. Kubernetes target only: service account of the pods, with workload identity. Default: none."""
    image_pull_secrets: NotRequired[Sequence[str] | None]
    """Optional. Kubernetes target only: names of Secrets in the namespace. Default: none, the nodes' own rights."""
    model_secret_name: NotRequired[str | None]
    """Optional. Kubernetes target only: Secret in the namespace with access to the stores of the models, mounted as
    files where they are fetched, and nowhere else: `.dockerconfigjson` (logins of registries), `connection-string`
    (Blob Storage), `ca.crt` (authorities of registries). Where nodes mount the models (`model_volumes`) they log in by
    its `.dockerconfigjson`, for which its type is `kubernetes.io/dockerconfigjson`. Default: none, the identity of the
    pods."""
    max_surge: NotRequired[Any]
    """Optional. Kubernetes target only: pods beyond the wanted number during a change, or a percentage such as 25%.
    Default: 1."""
    max_unavailable: NotRequired[Any]
    """Optional. Kubernetes target only: pods that may be missing during a change, or a percentage. Default: 0."""
    period_seconds: NotRequired[int | None]
    """Optional. Liveness probe: seconds between two. Default: 10."""
    initial_delay_seconds: NotRequired[int | None]
    """Optional. Liveness probe: seconds before the first. Default: 310."""
    timeout_seconds: NotRequired[int | None]
    """Optional. Liveness probe: seconds for an answer. Kubernetes target only: the local target looks after its
    replicas without a probe, and another number is a warning there. Default: 2."""
    success_threshold: NotRequired[int | None]
    """Optional. Liveness probe: successes until it counts as alive. Kubernetes allows a liveness probe no other number
    than 1: another one is a warning and has no effect. Default: 1."""
    failure_threshold: NotRequired[int | None]
    """Optional. Liveness probe: failures until it is restarted. Default: 3."""
    collect_model_data: NotRequired[bool | None]
    """Optional. Whether what scripts hand to `ModelDataCollector` (`azureml.monitoring`) is kept as CSV files, in Azure
    ML's layout. Default: false."""
    model_data_store: NotRequired[str | None]
    """Conditional. Required with `collect_model_data`: a folder on the local target, `az://account/container[/prefix]`
    on a Kubernetes target. Azure ML had the container `modeldata` of the workspace's storage account."""
    model_data_workspace: NotRequired[str | None]
    """Optional. `<subscription>/<resource group>/<workspace>`, the first folders of the layout. Default:
    default/default/default."""
    tags: NotRequired[Mapping[str, pulumi.Input[str]] | None]
    """Optional. Labels that may change. Default: none."""
    properties: NotRequired[Mapping[str, str] | None]
    """Optional. Labels that never change once set; new ones may be added. Default: none."""
    description: NotRequired[pulumi.Input[str] | None]
    """Optional. For people."""
    auth_enabled: NotRequired[bool | None]
    """Optional. Whether a key is needed to score. Default: true, unless `token_auth_enabled` is true."""
    token_auth_enabled: NotRequired[bool | None]
    """Optional. Whether a token (JWT) of `token_issuer` is needed to score; not with `auth_enabled` true. Default:
    false."""
    token_issuer: NotRequired[pulumi.Input[str] | None]
    """Conditional. Required with `token_auth_enabled`: the OpenID Connect issuer of the tokens, as their claim `iss`
    has it (Entra ID: `https://login.microsoftonline.com/<tenant>/v2.0`). In Azure ML the workspace was
    the issuer."""
    token_audiences: NotRequired[Sequence[pulumi.Input[str]] | None]
    """Conditional. Required with `token_auth_enabled`: one of these must stand in a token's claim `aud` (Entra ID: the
    client id of the app registration)."""
    token_jwks_uri: NotRequired[pulumi.Input[str] | None]
    """Optional. Where the issuer's keys are. Default: as its `.well-known/openid-configuration` says."""
    primary_key: NotRequired[pulumi.Input[str] | None]
    """Optional. Secret, 8 to 4,096 characters that a header can carry. Default: generated, and kept. One that was given
    stays when the argument is left out again; give another to end it."""
    secondary_key: NotRequired[pulumi.Input[str] | None]
    """Optional. Secret, 8 to 4,096 characters; only with `primary_key`. Default: generated, and kept as that is."""
    enable_app_insights: NotRequired[bool | None]
    """Optional. Whether requests, what scripts print and errors go to Application Insights. Default: false."""
    app_insights_connection_string: NotRequired[pulumi.Input[str] | None]
    """Conditional. Secret. Required with `enable_app_insights`: the connection string of the Application Insights
    resource. Azure ML took it from the workspace."""
    namespace: NotRequired[str | None]
    """Optional. Kubernetes namespace, 1 to 63 lower-case letters, digits and dashes; only a label on the local target.
    Default: default."""
    compute_target_name: NotRequired[str | None]
    """Optional. Name of the target, for deploymentconfig.json's sake: must be the one that `target` names."""
    key_version: NotRequired[int | None]
    """Optional. Kubernetes target only: another number makes a new primary key; the one before becomes the secondary
    one, so that both are good while clients change over. Default: 1."""
    cors_origins: NotRequired[Sequence[str] | None]
    """Optional. Whose pages may call it from a browser: exact origins such as `https://app.example.com`, up to 100. The
    router answers their preflights, which carry no key. Default: none."""
    retry_lost_requests: NotRequired[bool | None]
    """Optional. On a cluster: a request (up to 15 KiB) whose router, or whose replica's gate, died before a byte of its
    answer is sent again; the model may then have run it twice. Not what a dying model server had. Default: true."""
    version_header_enabled: NotRequired[bool | None]
    """Optional. Not in Azure ML: whether a request may ask for a version with the header `x-aks-inference-version`.
    Default: true."""
    port: NotRequired[int | None]
    """Optional. Local target only: also served at `http://127.0.0.1:<port>/score`. Default: none."""
    blobfuse_enabled: NotRequired[bool | None]
    """Optional. Accepted with a note: models are mounted as files, without blobfuse. Default: true."""
