"""AksInferenceCluster: an AKS cluster for inference."""
