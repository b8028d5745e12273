"""`kosmos2 bench`: measurements on this machine, as ratios."""
