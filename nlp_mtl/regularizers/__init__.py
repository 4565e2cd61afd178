"""Regularizers: what is added to every step's loss, of the parameters alone or of passes with changed embeddings.

A regularizer learns the model, takes its anchor before the first step of a fresh training, and gives a penalty at every
optimizer step, whose gradient is added once: after the tasks' gradients, whatever weighed those.
"""

from nlp_mtl.regularizers.base import Anchored, Regularizer
from nlp_mtl.regularizers.ewc import EWC
from nlp_mtl.regularizers.freelb import FreeLB
from nlp_mtl.regularizers.importance import IMPORTANCE, importance_of, load_importance, save_importance
from nlp_mtl.regularizers.l2_sp import L2SP
from nlp_mtl.regularizers.o_lora import OLora
from nlp_mtl.regularizers.smart import Smart
from nlp_mtl.regularizers.synaptic_intelligence import SynapticIntelligence

__all__ = [
    "EWC",
    "IMPORTANCE",
    "L2SP",
    "Anchored",
    "FreeLB",
    "OLora",
    "Regularizer",
    "Smart",
    "SynapticIntelligence",
    "importance_of",
    "load_importance",
    "save_importance",
]
