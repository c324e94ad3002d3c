"""Model data collection: what entry scripts hand to `azureml.monitoring`, as CSV files in a folder or in Blob Storage.

`script/` is the package that scripts import, in place of Azure ML's own, whose library needs OpenSSL 1.0. It appends
rows to files: on this machine to those of the store, in a pod to a spool, from where `shipping` appends them to blobs.
"""
