"""What the model is asked: tasks as data, their prompts as text and as token ids."""
