"""One module per block: what it measures, its figures and what they say."""
