"""Compare two versions of a model on the same rows: metrics, whether a difference is noise, and a report for people."""
