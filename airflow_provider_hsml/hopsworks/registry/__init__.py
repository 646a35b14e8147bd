"""The model registry: look up, register, download and delete model versions."""
