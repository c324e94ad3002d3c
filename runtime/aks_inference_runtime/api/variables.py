"""The rule for environment variables: what a process can be given."""

import os

LONGEST_VARIABLE = 128 * 1024
"""Bytes of `NAME=value` with the NUL at its end: Linux starts no process with a longer one (MAX_ARG_STRLEN, execve)."""


def variable_problem(name: str, value: str) -> tuple[str, str] | None:
    """The broken rule and the mend, None for one that a process can be given. Neither holds anything of the value."""
    size = len(os.fsencode(f"{name}={value}")) + 1
    if size <= LONGEST_VARIABLE:
        return None
    rule = f"has {size:,} bytes with its name; Linux gives a process at most {LONGEST_VARIABLE:,} in one variable"
    return rule, "put the content into a file beside the script, and its name here"
