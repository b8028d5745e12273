"""Tables: of the bytes of images (Parquet, Arrow), or of names of images (manifests)."""
