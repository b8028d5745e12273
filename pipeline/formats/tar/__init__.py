"""Tar archives, plain or compressed, and their WebDataset samples."""
