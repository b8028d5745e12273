"""`kosmos2 bench engine`: `comparison` measures, the other modules are its parts."""
