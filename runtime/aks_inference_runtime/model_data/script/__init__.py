"""On the import path of a replica; knows nothing of the rest and runs on any Python that the scoring server runs on."""
