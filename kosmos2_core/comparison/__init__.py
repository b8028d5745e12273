"""The engine beside Hugging Face's classes: the same work for both, and where they differ."""
