"""Previews and applies a Pulumi program where the pulumi CLI is not installed, over the official protocol."""
