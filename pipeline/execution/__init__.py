"""The parts that run on Ray."""
