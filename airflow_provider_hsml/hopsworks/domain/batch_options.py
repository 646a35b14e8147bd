"""The options of a batch that operators and hooks both name. Imports nothing, since DAG files are parsed often."""

CHUNK_ROWS = 256
"""Rows of a request. A deployment with a schema of its requests accepts at most 512."""
ROW_FORMATS = ("list", "record")
STALE_STATE = ("fail", "restart")
MODEL_CHANGE = ("fail", "restart", "allow")
