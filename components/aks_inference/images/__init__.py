"""Images of services, of jobs and of the runtime itself: found in a registry, or built."""
