"""How the tasks of a step are weighed: by what is known before it, by its losses, or by the tasks' gradients."""

from nlp_mtl.weighing.base import Host, Weighing
from nlp_mtl.weighing.choosing import weighing_for

__all__ = ["Host", "Weighing", "weighing_for"]
