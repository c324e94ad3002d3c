"""InferenceRuntime: the router and the autoscaler on any Kubernetes cluster."""
