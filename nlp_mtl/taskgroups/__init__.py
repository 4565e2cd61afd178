"""Which tasks to train together, under a budget of encoders, as an affinity of tasks suggests it."""
