"""The component TrainingJob."""
