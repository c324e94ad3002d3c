"""The real servers that the tests of models and images start, for measurements."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ("helpers", "cluster")
"""Folders of modules that `conftest.py` files import."""


def of_tests(area: str) -> ModuleType:
    """What `tests/<area>/conftest.py` defines: how its servers are installed and started."""
    name = f"bench_of_tests_{area}"
    sys.path += [one for folder in HELPERS if (one := str(ROOT / "tests" / folder)) not in sys.path]
    specification = importlib.util.spec_from_file_location(name, ROOT / "tests" / area / "conftest.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
