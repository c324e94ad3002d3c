"""The plugin process: components and custom resources over the Pulumi provider protocol."""
