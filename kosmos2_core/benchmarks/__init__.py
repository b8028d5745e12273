"""Grounding benchmarks by the published protocol, from MDETR's annotation files.

queries.py    an annotation file -> what is asked of each image, and where the answer is
recall.py     answers -> recall, accuracy, what the scores are worth
published.py  what was published of Kosmos-2
"""
