"""Logits -> tokens: the n-gram ban, the grammar, raw scores."""
