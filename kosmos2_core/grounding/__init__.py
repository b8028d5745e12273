"""Grounding: token ids or markup -> caption, entities, boxes, issues."""
