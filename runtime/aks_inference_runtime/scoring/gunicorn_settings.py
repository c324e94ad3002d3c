"""Read by gunicorn in the replica's environment; names that its release does not know are passed over."""

# One for all of a user, under the home directory: replicas would take it from each other and leave it behind.
control_socket_disable = True
# The server logs every request itself.
accesslog = None
# The server's own handler writes gunicorn's errors too; without this they stand in the log twice.
errorlog = "/dev/null"
