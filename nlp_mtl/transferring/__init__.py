"""Before training: which encoder fits which task, and which tasks may gain from one another, from cheap evidence."""
