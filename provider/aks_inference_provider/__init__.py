"""The plugin process: components and custom resources over the Pulumi provider protocol."""

from importlib import metadata

PACKAGE = "aks-inference"
"""The package's name in tokens: `aks-inference:index:<Class>`."""
DISTRIBUTION = "pulumi-aks-inference"


def package_version() -> str:
    """The version of the installed distribution; the schema and the plugin report it."""
    return metadata.version(DISTRIBUTION)
