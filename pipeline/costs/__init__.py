"""The time that a dataset takes: of its actors, with limits, prices and estimates; its pace."""
