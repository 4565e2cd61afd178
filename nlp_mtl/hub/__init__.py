"""To the Hub and back: what a repository holds, what never leaves the house, and pushes during training."""
