"""Evaluation of a shapes checkpoint on scenes that are not in the training data."""
