"""The API server that a kubeconfig names, given as its content, as a path, or by the environment."""

import tempfile
from pathlib import Path

from aks_inference_runtime.kubernetes.connection import Connection, from_kubeconfig
from aks_inference_runtime.kubernetes.kubeconfig import of_environment
from aks_inference_runtime.kubernetes.log_in import by_program


def connection_of(kubeconfig: str | None, context: str | None) -> Connection:
    """Raises InvalidInput."""
    if kubeconfig is None:
        return from_kubeconfig(of_environment(), context, by_program)
    if "\n" not in kubeconfig and Path(kubeconfig).expanduser().is_file():
        return from_kubeconfig(Path(kubeconfig).expanduser(), context, by_program)
    with tempfile.NamedTemporaryFile("w", prefix="aks-inference-", suffix=".kubeconfig") as file:  # 0600
        file.write(kubeconfig)
        file.flush()
        return from_kubeconfig(Path(file.name), context, by_program)
