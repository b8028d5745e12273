"""Grounding benchmarks by the published protocol, from MDETR's annotation files.

queries.py    annotation file -> phrases to ground in each image, with the true boxes
recall.py     answers -> recall, accuracy, calibration of the scores
published.py  published figures of Kosmos-2
"""
