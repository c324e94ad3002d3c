"""LocalInferenceCluster: the inference runtime on this machine."""
