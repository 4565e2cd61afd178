"""Knowledge distillation: tasks that learn from a teacher's logits and hidden states beside their labels.

Papers: Hinton et al., 2015, arXiv 1503.02531; teacher annealing, BAM: Clark et al., 2019, arXiv 1907.04829; hidden
states: Romero et al., 2014, arXiv 1412.6550, and TinyBERT: Jiao et al., 2019, arXiv 1909.10351; learning without
forgetting: Li and Hoiem, 2016, arXiv 1606.09282.
"""

from nlp_mtl.distillation.distilling import Distilling
from nlp_mtl.distillation.outputs import Outputs
from nlp_mtl.distillation.rows import TaughtRows
from nlp_mtl.distillation.teachers import Teacher
from nlp_mtl.distillation.teaching import Teaching

__all__ = ["Distilling", "Outputs", "TaughtRows", "Teacher", "Teaching"]
