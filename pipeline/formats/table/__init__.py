"""Tables with the bytes of images (Parquet, Arrow) or with names of images (manifests)."""
