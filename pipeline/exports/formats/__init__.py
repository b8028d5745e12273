"""Export formats, one module each: they turn an example into records.

protocol.py defines a format; registry.py has all of them by name.
"""
