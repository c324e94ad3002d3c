"""The version of the package, from its metadata: one source for the components, the plugin and the resources."""

from importlib.metadata import version

VERSION = version("pulumi-aks-inference")
PACKAGE = "aks-inference"
