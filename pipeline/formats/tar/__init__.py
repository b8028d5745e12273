"""Tar archives, plain or compressed, and the WebDataset samples in them."""
