"""Model serving on Kubernetes and AKS as Pulumi components."""
