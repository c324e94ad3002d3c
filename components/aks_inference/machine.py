"""What this machine holds, for services whose replicas are processes on it."""

import os
from dataclasses import dataclass
from functools import cache

import psutil


@dataclass(frozen=True)
class Machine:
    """Cores and memory that processes can use."""

    cores: float
    memory_gb: float
    """2^30 bytes, as the supervisor counts."""


@cache
def this_machine() -> Machine:
    """The machine that runs the program; with a local target also the one that serves."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cores=cores, memory_gb=psutil.virtual_memory().total / 2**30)
