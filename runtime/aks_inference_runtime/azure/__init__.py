"""Azure's API (ARM), for what has no resource of its own: attaching clusters, building images."""
