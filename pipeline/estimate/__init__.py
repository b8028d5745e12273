"""How much there is to do, how long it takes, and how sure that is."""
