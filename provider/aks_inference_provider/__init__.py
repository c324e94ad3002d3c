"""The plugin process: components and custom resources over the Pulumi provider protocol."""

PACKAGE = "aks-inference"
"""The package's name in tokens: `aks-inference:index:<Class>`."""
DISTRIBUTION = "pulumi-aks-inference"


def package_version() -> str:
    """The version of the installed distribution; the schema and the plugin report it."""
    # Loaded here: with what it needs it takes longer than Python's own start, and `check` asks for no version.
    from importlib import metadata

    return metadata.version(DISTRIBUTION)
