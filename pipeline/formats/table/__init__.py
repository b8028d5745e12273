"""Tables of images or of their names: Parquet, Arrow, CSV, JSON."""
