"""RegisteredModel: a named, versioned set of files."""
