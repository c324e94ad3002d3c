"""The contract between what is declared and what runs: ScoringEndpoint, its status, and targets."""
