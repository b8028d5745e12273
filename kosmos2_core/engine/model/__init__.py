"""One forward pass over Hugging Face weights, for prefill, extension and decode."""
