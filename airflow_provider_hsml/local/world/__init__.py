"""Stored state of the local Model Serving: projects, models, files and deployments. Knows no HTTP."""
