"""Drawn scenes whose captions and boxes are known exactly, and exercises on them."""
