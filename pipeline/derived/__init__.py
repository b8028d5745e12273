"""A dataset made of another: fewer rows, entities or boxes, in the same layout.

`deriving` is the frame: commit by commit, resumable, with an account of what went. `filtering`
keeps what meets conditions, `deduplicating` one of each image.
"""
