"""Send calls over HTTP: in workers with requests, in the triggerer with httpx."""
