"""WebDataset tars, compressed or not."""
