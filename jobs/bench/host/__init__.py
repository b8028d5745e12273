"""`kosmos2 bench host`: the CPU time of engine and actor beside a device."""
