"""
The handlers of the REST API, one module for each subject. A handler reads its arguments, calls the world, returns JSON.

Each module has a table ``ROUTES``; ``app`` combines them.
"""
