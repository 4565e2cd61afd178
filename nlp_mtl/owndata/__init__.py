"""Own data: a task out of a table, with its kind of head, labels, splits and metrics inferred, and the reasons said."""

from nlp_mtl.owndata.making import task_from_data

__all__ = ["task_from_data"]
