"""Arguments of TrainingJob, as they come over the wire."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import pulumi

from aks_inference.service.args import EnvironmentArgs, Target


class TrainingJobArgs(TypedDict):
    """One run of a script: a process on this machine, or a Job on a Kubernetes cluster."""

    target: Target
    """Required. Where it runs: the `target` output of a cluster; in Python also the cluster itself. A Kubernetes target
    needs a runtime with a `registry`, where the image of environment and project is looked up or built to."""
    entry_script: str
    """Required. Python file, relative to `source_directory`. It is run as `python <entry_script> <arguments>` in the
    project's folder; what it writes into `./outputs`, `./models` and `./logs` is kept."""
    source_directory: str
    """Required. The project: a folder, relative to the working directory of the program or absolute. Files that its
    `.amlignore` (else its `.gitignore`) names stay out."""
    max_mb: NotRequired[int | None]
    """Optional. The most that the project, and a build context of its environment, may hold, MB. Default: 300."""
    max_files: NotRequired[int | None]
    """Optional. The same for the number of files. Default: 2,000."""
    job_name: NotRequired[str | None]
    """Optional. 1 to 40 lower-case letters, digits and dashes. Default: the resource's name."""
    arguments: NotRequired[Sequence[str] | None]
    """Optional. Of the script. Default: none."""
    environment: NotRequired[EnvironmentArgs | None]
    """Optional. Packages and variables. On this machine the scoring server is among the packages: jobs and services
    share environments. Default: no packages."""
    outputs_directory: NotRequired[str | None]
    """Optional. Folder of this machine that gets a folder with log and results for each run. Default: `jobs/<name>` in
    the working directory of the program."""
    timeout_minutes: NotRequired[float | None]
    """Optional. Longer runs are ended. Default: 1,440."""
    trigger: NotRequired[str | None]
    """Optional. Another text is another run, though nothing else has changed. Default: none."""
    cpu_cores: NotRequired[float | None]
    """Optional. Kubernetes target only: cores that it asks for. Default: what the namespace says."""
    memory_gb: NotRequired[float | None]
    """Optional. Kubernetes target only: memory that it asks for, GB. Default: what the namespace says."""
    gpu_cores: NotRequired[int | None]
    """Optional. Kubernetes target only: whole GPUs. Default: 0."""
    namespace: NotRequired[str | None]
    """Optional. Kubernetes target only: of the Job. Default: default."""
    service_account_name: NotRequired[str | None]
    """Optional. Kubernetes target only: service account of the pod, with workload identity. Default: none."""
    image_pull_secrets: NotRequired[Sequence[pulumi.Input[str]] | None]
    """Optional. Kubernetes target only: names of Secrets in the namespace. Default: none, the nodes' own rights."""
