"""Reports on a dataset: static HTML pages that load nothing, and the same figures as data."""
