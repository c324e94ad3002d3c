"""The router: HAProxy as the data plane, an agent that configures and observes it, a gate at each replica."""
