"""Shares its name with Azure ML's other packages, which stay importable beside it."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
