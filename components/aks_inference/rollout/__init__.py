"""ControlledRolloutEndpoint: one address, up to six versions."""
