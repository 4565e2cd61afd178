"""Sharings: which parameters tasks share, from a mixed batch to packed hidden states for each task."""

from nlp_mtl.sharing.base import Sharing
from nlp_mtl.sharing.hard import Hard

__all__ = ["Hard", "Sharing"]
