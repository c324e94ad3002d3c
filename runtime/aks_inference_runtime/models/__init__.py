"""Models: where their files come from, the stores that keep their versions, how they reach replicas. Knows nothing of
Pulumi."""
