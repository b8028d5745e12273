"""How good a shapes checkpoint is on scenes that it never saw."""
