"""Pages to look at a dataset with: static HTML that loads nothing; and its figures as data."""
