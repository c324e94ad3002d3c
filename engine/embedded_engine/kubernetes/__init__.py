"""A provider for the package `kubernetes`: server-side apply, previews by dry run, waits until things are ready.

Used where the official plugin is not installed; tokens, inputs and state are the official plugin's. What it does not
have (Helm, Kustomize, YAML files, patch and list resources) it refuses by name.
"""
