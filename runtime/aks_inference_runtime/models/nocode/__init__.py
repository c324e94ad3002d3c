"""Services without an entry script of their own: what they run and what it needs (azureml-v1.md 4.3)."""

from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.api.models import Framework

DRIVER = Path(__file__).with_name("no_code_driver.py")
"""The entry script of all of them. It runs in the model's environment, where this package is not: it stands alone."""
_NUMERIC = ("numpy", "pandas")
PACKAGES: dict[Framework, tuple[str, ...]] = {
    Framework.SCIKIT_LEARN: ("scikit-learn", "joblib", "dill", *_NUMERIC),
    Framework.ONNX: ("onnxruntime", *_NUMERIC),
    Framework.TENSORFLOW: ("tensorflow-cpu", *_NUMERIC),
    Framework.MULTI: ("scikit-learn", "joblib", "dill", "onnxruntime", *_NUMERIC),
}
"""Of each framework; the first is the one that `model_framework_version` is of."""


@dataclass(frozen=True)
class NoCode:
    """What runs."""

    script: Path
    packages: tuple[str, ...]
    pinned: bool
    """Whether the framework's own package is of the version that was asked for."""


def no_code(framework: str, version: str | None = None) -> NoCode | None:
    """What a framework's models run with; None where there is nothing for it.

    Args:
        framework: Required. As the model was registered.
        version: Optional. Of the framework; its package is pinned to it. Default: the newest.
    """
    packages = PACKAGES.get(Framework(framework)) if framework in set(Framework) else None
    if packages is None:
        return None
    # The format of ONNX and the models in a Multi have versions of their own.
    pinned = version is not None and framework in {Framework.SCIKIT_LEARN, Framework.TENSORFLOW}
    return NoCode(DRIVER, (f"{packages[0]}=={version}", *packages[1:]) if pinned else packages, pinned)
