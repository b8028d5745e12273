"""Prompts: tasks as data, and their prompts as text and as token ids."""
