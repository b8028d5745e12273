"""Encoded bytes -> 3x224x224 uint8, or a typed error."""
