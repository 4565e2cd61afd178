"""Probes: which layer of a fixed encoder, and which of its dimensions, hold what a task asks for."""
