"""Whether what is asked for is there: decided from the releases of a package at all places. Pure."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from aks_inference_runtime.packages.page import Releases, machine_name

KNOWN = (
    "azure-identity", "azure-storage-blob", "catboost", "fastapi", "flask", "inference-schema", "joblib", "keras",
    "lightgbm", "mlflow", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "pandas", "pillow", "polars",
    "prophet", "pyarrow", "pydantic", "pyyaml", "requests", "safetensors", "scikit-image", "scikit-learn", "scipy",
    "sentence-transformers", "shap", "spacy", "statsmodels", "tensorflow", "tokenizers", "torch", "torchvision",
    "transformers", "xgboost",
)  # fmt: skip
"""What models are served with: names that a misspelt one is compared with."""


@dataclass(frozen=True)
class Refusal:
    """Why pip could not install it."""

    rule: str
    mend: str


def judge(
    requirement: Requirement, found: Sequence[Releases], places: str, *, pre: bool, near: Iterable[str] = KNOWN
) -> Refusal | None:
    """None: pip finds a release.

    Args:
        requirement: Required. By name.
        found: Required. Its releases at each place that has the name; empty: none has it.
        places: Required. The places, for people.
        pre: Required. Whether releases before the final one are asked for.
        near: Optional. Names that exist.
    """
    if not found:
        close = difflib.get_close_matches(canonicalize_name(requirement.name), sorted(set(near)), n=1, cutoff=0.75)
        mend = f"did you mean {close[0]}?" if close else "check the spelling, or add the index with --extra-index-url"
        return Refusal(f"no package of this name at {places}", mend)
    usable = [version for one in found for version in one.usable]
    specifier = requirement.specifier
    if meets(specifier, usable, pre=pre):
        return None
    pinned = any(one.operator == "===" or (one.operator == "==" and "*" not in one.version) for one in specifier)
    yanked = [version for one in found for version in one.yanked]
    if pinned and meets(specifier, yanked, pre=pre):
        return None
    others = meets(specifier, [version for one in found for version in one.others], pre=pre)
    latest = newest(usable)
    mend = f"use {canonicalize_name(requirement.name)}=={latest}" if latest else "choose another package"
    if others:
        return Refusal(
            f"{_meets(specifier, newest(others))} has files for other machines only, not {machine_name()}", mend
        )
    if meets(specifier, yanked, pre=pre):
        return Refusal(f"{_meets(specifier, newest(yanked))} was taken back by its authors", mend)
    if not latest:
        return Refusal(f"{places} has no release of it for {machine_name()}", mend)
    return Refusal(f"no release meets {specifier or 'it'} at {places}; the newest is {latest}", mend)


def meets(specifier: SpecifierSet, versions: Sequence[str], *, pre: bool) -> list[str]:
    """Those that meet it. Without `pre` releases before the final one count only where there are no others."""
    return list(specifier.filter(versions, prereleases=True if pre else None))


def newest(versions: Sequence[str]) -> str | None:
    """The newest final one, else the newest."""
    final = [one for one in versions if not Version(one).is_prerelease]
    return max(final or versions, key=Version, default=None)


def _meets(specifier: SpecifierSet, version: str | None) -> str:
    return f"{version}, the newest that meets {specifier}," if specifier else f"{version}, the newest release,"
