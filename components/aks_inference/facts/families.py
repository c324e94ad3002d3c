"""Families of VM sizes: Azure's quota of vCPU is kept by family."""

from functools import cache

from aks_inference.facts.table import read


@cache
def _families() -> dict[str, str]:
    return {size.lower(): family for family, sizes in read("size_families.json").records for size in sizes}


def family_of(size: str) -> str | None:
    """As Azure's usage names it (`standardDSv5Family`); None where the size is not known."""
    return _families().get(size.lower())
