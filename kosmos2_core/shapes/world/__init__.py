"""Drawn scenes with exactly known captions and boxes, and exercises on them."""
