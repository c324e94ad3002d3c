"""Ids of the built-in roles that the components assign."""

from functools import cache

from aks_inference.facts.table import read


@cache
def _ids() -> dict[str, str]:
    return {record[0]: record[1] for record in read("roles.json").records}


def role_id(name: str) -> str:
    """The role definition's GUID; KeyError for a role that is not in the table."""
    return _ids()[name]
