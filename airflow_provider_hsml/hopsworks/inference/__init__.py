"""Send requests to the models of deployments, through the Hopsworks proxy or the ingress."""
