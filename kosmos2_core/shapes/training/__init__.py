"""Training of the embedded checkpoint, by `python -m kosmos2_core.shapes.train`."""
