"""Whether replicas fit on this machine: the sum of what they ask for against what it has. Pure but for `machine`."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from aks_inference_runtime.api.endpoint import Resources


@dataclass(frozen=True)
class Machine:
    """What there is to share out."""

    cpu_cores: float
    memory_gb: float
    gpu_cores: int


def machine() -> Machine:
    """This machine: the cores that this process may use, its memory, its NVIDIA devices."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = sum(path.name.removeprefix("nvidia").isdecimal() for path in Path("/dev").glob("nvidia*"))
    return Machine(float(cores), psutil.virtual_memory().total / 2**30, gpus)


def room(total: Machine, used: Iterable[Resources], request: Resources) -> int:
    """How many more replicas with this request fit beside those in use."""
    taken = list(used)
    # Sums of tenths are not exact; a thousandth of a core is nobody's share.
    fits = [
        int((total.cpu_cores - sum(r.cpu_cores for r in taken) + 1e-6) / request.cpu_cores),
        int((total.memory_gb - sum(r.memory_gb for r in taken) + 1e-6) / request.memory_gb),
    ]
    if request.gpu_cores:
        fits.append((total.gpu_cores - sum(r.gpu_cores for r in taken)) // request.gpu_cores)
    return max(0, min(fits))


def why_not(total: Machine, used: Iterable[Resources], request: Resources) -> str:
    """The figures, for a replica that does not fit."""
    taken = list(used)
    text = (
        f"a replica asks for {request.cpu_cores:g} cores and {request.memory_gb:g} GB; of this machine's "
        f"{total.cpu_cores:g} cores {sum(r.cpu_cores for r in taken):g} are taken, of its {total.memory_gb:.1f} GB "
        f"{sum(r.memory_gb for r in taken):g}"
    )
    if request.gpu_cores:
        text += f"; it asks for {request.gpu_cores} GPU, the machine has {total.gpu_cores}"
    return text
