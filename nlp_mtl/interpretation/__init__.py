"""What a run's tasks look at in a text, and how alike the states are that they look at."""
