"""Run jobs of Hopsworks: start or attach, wait, and report the end. Begin with ``run_job``."""
