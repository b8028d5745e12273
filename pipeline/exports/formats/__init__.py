"""Formats of exports, one module each: an example -> its records.

protocol.py says what a format is; registry.py has all of them by name.
"""
