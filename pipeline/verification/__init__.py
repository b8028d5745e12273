"""Whether an output holds what it should, and mending what can be mended."""
