"""Readers of input files: bytes of a file -> samples. Nothing here knows shards.

sample.py         what a reader yields
limits.py         how much of an input is taken, whatever its kind
decompression.py  compressed files, told by their first bytes; expanding.py: texts among them
listed.py         images that are objects of their own, as a list has them
table/            Parquet, Arrow, CSV, JSON: images in columns, or names of images
tar/              WebDataset archives
"""
