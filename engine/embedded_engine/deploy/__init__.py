"""A deployment: from what a program registers to the steps that are done, and to the state that is left."""
