"""What runs in the cluster or on this machine: router, autoscaler, replicas. Never imports Pulumi."""
