"""The scoring server of a replica: its Python environment, its variables, its command. The same on every target."""
