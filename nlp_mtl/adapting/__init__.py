"""Adapters after training: listed, removed, merged into one, and a task added beside the others."""
