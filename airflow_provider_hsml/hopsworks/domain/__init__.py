"""Plain values and rules of models and deployments: no I/O, no flow, no clock."""
