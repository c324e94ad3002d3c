"""Building images: our own builder, which needs no build tool, and those that use one."""
