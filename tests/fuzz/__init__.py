"""Laws of the readers and the collation, and strategies that look for what breaks them.

`make test` tries a few fixed examples of each (``test_*.py``); ``python scripts/fuzz.py --minutes N`` tries fresh ones.
"""
