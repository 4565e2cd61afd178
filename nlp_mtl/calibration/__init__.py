"""Calibration: whether a task's probabilities are as often right as they say, and a temperature that mends it."""
