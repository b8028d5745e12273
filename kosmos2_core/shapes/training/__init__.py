"""How the embedded checkpoint is trained; `python -m kosmos2_core.shapes.train` is the command."""
