"""Publishing of an export on the Hugging Face hub: what is sent (upload), and its sending (hub)."""
