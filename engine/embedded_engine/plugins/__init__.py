"""Provider plugins: where they are found, how they are started, and their calls."""
