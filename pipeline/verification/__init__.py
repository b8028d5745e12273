"""Checks whether an output holds what it should, and mends what can be mended."""
