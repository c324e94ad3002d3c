"""The objects of a job on Kubernetes: a Job of one pod, a Secret with its variables and the keeper's token. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aks_inference_runtime.api.kubernetes import LINUX_NODES
from aks_inference_runtime.jobs.keeper import PORT
from aks_inference_runtime.jobs.model import Job

Object = dict[str, Any]
APP_ROOT = "/var/azureml-app"
WORK = "/work"
TRAINING, KEEPER = "training", "results"
LABEL = "aks-inference.dev/job"
_TOKEN = "/access/token"  # noqa: S105 - a path
_USER = 10_001
_FETCH_S = 900
"""For fetching results, beyond the longest run."""
_KEPT_S = 600
"""A job that nobody removed goes by itself."""
_RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
_START = (
    "import os, shutil, sys; source, script, *rest = sys.argv[1:]; work = '/work/' + os.path.basename(source); "
    "shutil.copytree(source, work); os.chdir(work); os.execv(sys.executable, [sys.executable, script, *rest])"
)
"""The project is read-only in the image; a script writes ./outputs. Then the script takes the process's place."""


@dataclass(frozen=True)
class Pod:
    """How the job's pod is made."""

    image: str
    """Environment and project."""
    keeper_image: str
    """The runtime's."""
    namespace: str = "default"
    cpu_cores: float | None = None
    memory_gb: float | None = None
    gpu_cores: int = 0
    shared_memory_mb: int | None = None
    """None: the node's own, mostly 64 MB: too little for workers that load data."""
    service_account: str | None = None
    pull_secrets: tuple[str, ...] = ()


def secret(job: Job, pod: Pod, token: str, owner: Object) -> Object:
    """Variables and token; it goes with the Job."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**_metadata(job, pod), "ownerReferences": [owner]},
        "stringData": {"token": token, **{f"variable.{name}": value for name, value in job.told.items()}},
    }


def owner(made: Mapping[str, Any]) -> Object:
    """Of what belongs to a Job."""
    metadata = made["metadata"]
    return {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}


def manifest(job: Job, pod: Pod) -> Object:
    """The Job: tried once, ended after its longest time, removed by the cluster if nobody else does it."""
    longest = math.ceil(job.longest_s)
    template: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": pod.service_account is not None,
        "nodeSelector": LINUX_NODES,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_training(job, pod), _keeper(job, pod, longest)],
        "volumes": [
            {"name": "work", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {
                "name": "access",
                "secret": {
                    "secretName": job.run_id,
                    "items": [{"key": "token", "path": "token"}],
                    "defaultMode": 0o440,
                },
            },
        ],
    }
    if pod.shared_memory_mb is not None:
        sized = {"medium": "Memory", "sizeLimit": f"{pod.shared_memory_mb}Mi"}
        template["volumes"].append({"name": "shm", "emptyDir": sized})
    labels = {LABEL: job.run_id}
    if pod.service_account is not None:
        template["serviceAccountName"] = pod.service_account
        labels["azure.workload.identity/use"] = "true"
    if pod.pull_secrets:
        template["imagePullSecrets"] = [{"name": name} for name in pod.pull_secrets]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(job, pod),
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": longest + _FETCH_S,
            "ttlSecondsAfterFinished": _KEPT_S,
            "template": {"metadata": {"labels": labels}, "spec": template},
        },
    }


def _metadata(job: Job, pod: Pod) -> Object:
    return {"name": job.run_id, "namespace": pod.namespace, "labels": {LABEL: job.run_id}}


def _training(job: Job, pod: Pod) -> Object:
    requests: Object = {}
    if pod.cpu_cores is not None:
        requests["cpu"] = f"{round(pod.cpu_cores * 1000)}m"
    if pod.memory_gb is not None:
        requests["memory"] = f"{round(pod.memory_gb * 1024)}Mi"
    limits = {"nvidia.com/gpu": str(pod.gpu_cores)} if pod.gpu_cores else {}
    mounts = [{"name": "work", "mountPath": WORK}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    if pod.shared_memory_mb is not None:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    return {
        "name": TRAINING,
        "image": pod.image,
        "command": _literal("python", "-c", _START, f"{APP_ROOT}/{job.project}", job.entry_script, *job.arguments),
        "workingDir": WORK,
        "env": [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": job.run_id, "key": f"variable.{name}"}}}
            for name in sorted(job.told)
        ],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": _RESTRICTED,
        "volumeMounts": mounts,
    }


def _literal(*words: str) -> list[str]:
    """As they are: Kubernetes puts variables in place of `$(NAME)`, and `$` of `$$`."""
    return [word.replace("$", "$$") for word in words]


def _keeper(job: Job, pod: Pod, longest: int) -> Object:
    return {
        "name": KEEPER,
        "image": pod.keeper_image,
        "command": ["python", "-m", "aks_inference_runtime.jobs.keeper"],
        "args": _literal(f"{WORK}/{job.project}", _TOKEN, str(longest + _FETCH_S)),
        "ports": [{"name": "results", "containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": _RESTRICTED,
        "volumeMounts": [
            {"name": "work", "mountPath": WORK, "readOnly": True},
            {"name": "access", "mountPath": "/access", "readOnly": True},
        ],
    }
