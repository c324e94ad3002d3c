"""Environment definitions: reading them, their canonical form, the image key, the generated build file."""
