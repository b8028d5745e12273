"""Datasets derived from another one: fewer rows, entities or boxes, in the same layout.

`deriving` is the frame: it works commit by commit, can be resumed, and counts what was dropped.
`filtering` keeps what meets conditions. `deduplicating` keeps one of each image.
"""
