"""A dataset made of another: fewer rows, entities or boxes, in the same layout.

options.py      what can be asked for
deriving.py     the frame: commit by commit, resumable, with an account of what went
account.py      how much there was, how much is left, what took the rest
pruning.py      boxes and entities out of the column `entities`; dropped rows -> rejections
conditions.py   what a box, an entity or an annotation must meet; querying.py asks DuckDB
filtering.py    keeps what meets the conditions
duplicates.py   which image is a copy of which; perceptual.py: by their looks
deduplicating.py  keeps one of each
"""
