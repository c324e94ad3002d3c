"""What pip's package index has of the packages that a program asks for. Knows nothing of Pulumi."""
