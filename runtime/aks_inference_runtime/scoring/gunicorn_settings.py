"""Read by gunicorn in the replica's environment; names that its release does not know are passed over."""

import logging

# One for all of a user, under the home directory: replicas would take it from each other and leave it behind.
control_socket_disable = True
# The server logs every request itself.
accesslog = None
# The server's own handler writes gunicorn's errors too; without this they stand in the log twice.
errorlog = "/dev/null"
# Of its own settings (AML_APP_ROOT, AZUREML_MODEL_DIR ...) the server says in each process that it does not know them.
logging.getLogger("azmlinfsrv").addFilter(lambda record: not str(record.msg).startswith("Found extra keys"))
