"""What the model answered: token ids or markup -> caption, entities, boxes, issues."""
