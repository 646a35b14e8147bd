"""
The REST API's handlers, a module for each subject. Each reads its arguments, asks the world, and answers JSON.

Each module has its table ``ROUTES``; ``app`` puts them together.
"""
