"""The simulated cluster: rollouts, instances, and the engines that run models."""
