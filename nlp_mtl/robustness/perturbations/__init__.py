"""The built-in perturbations, each in a file."""

from nlp_mtl.robustness.perturbations.case import Case
from nlp_mtl.robustness.perturbations.entities import EntitySwap
from nlp_mtl.robustness.perturbations.length import Appended, Truncated
from nlp_mtl.robustness.perturbations.negation import Negation
from nlp_mtl.robustness.perturbations.punctuation import Punctuation
from nlp_mtl.robustness.perturbations.typos import Typos
from nlp_mtl.robustness.perturbations.word_swaps import SimilarWords, WordSwap

__all__ = [
    "Appended",
    "Case",
    "EntitySwap",
    "Negation",
    "Punctuation",
    "SimilarWords",
    "Truncated",
    "Typos",
    "WordSwap",
]
