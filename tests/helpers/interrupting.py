"""Ctrl-C at a moment that no test could meet from outside: while a module is loaded."""

import os
from pathlib import Path

_SITE = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


def interrupted_at(folder: Path, module: str) -> str:
    """PYTHONPATH of a process that gets the signal as soon as it asks for the module. Writes into the folder."""
    (folder / "sitecustomize.py").write_text(_SITE.format(module=module))
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
