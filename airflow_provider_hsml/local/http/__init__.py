"""The HTTP server of the local Model Serving and its middleware."""
