"""Heads: one class per kind of task, built from `AutoModelFor…` minus its encoder."""

from nlp_mtl.heads.base import Head, PlacedRow
from nlp_mtl.heads.domain_adversarial import DomainAdversarial
from nlp_mtl.heads.domain_alignment import DomainAlignment
from nlp_mtl.heads.make import head_of_spec, make_heads, meet
from nlp_mtl.heads.masked_lm import MaskedLM
from nlp_mtl.heads.multi_label import MultiLabel
from nlp_mtl.heads.multiple_choice import MultipleChoice
from nlp_mtl.heads.question_answering import QuestionAnswering
from nlp_mtl.heads.regression import Regression
from nlp_mtl.heads.seq2seq import Seq2Seq
from nlp_mtl.heads.sequence_classification import SequenceClassification
from nlp_mtl.heads.token_classification import TokenClassification

__all__ = [
    "DomainAdversarial",
    "DomainAlignment",
    "Head",
    "MaskedLM",
    "MultiLabel",
    "MultipleChoice",
    "PlacedRow",
    "QuestionAnswering",
    "Regression",
    "Seq2Seq",
    "SequenceClassification",
    "TokenClassification",
    "head_of_spec",
    "make_heads",
    "meet",
]
