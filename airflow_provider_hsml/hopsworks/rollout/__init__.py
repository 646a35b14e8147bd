"""Change one deployment and follow the rollout until the new configuration is live and verified."""
