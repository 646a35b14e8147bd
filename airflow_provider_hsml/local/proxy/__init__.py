"""The two routes to a model: the Hopsworks proxy and the ingress."""
