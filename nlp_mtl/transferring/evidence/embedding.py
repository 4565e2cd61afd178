"""Tasks are alike whose texts are alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm.auto import tqdm

from nlp_mtl.registry import evidences
from nlp_mtl.transferring.evidence.base import Evidence
from nlp_mtl.transferring.features import features_of
from nlp_mtl.transferring.opening import Opened


@evidences.register("embedding")
class Embedding(Evidence):
    """Cosine of the tasks' mean text embeddings, less the mean of all tasks.

    A task is the mean of its rows' texts, each the mean of its tokens in the pretrained encoder. Encoders give any two
    texts much in common, so the mean over the tasks is taken off first, where there are three or more. Two tasks whose
    means are no farther apart than those of two samples of the same texts would be count as the same: 1.

    Relations: the text embedding of Vu et al., with the centre taken off; labels are not looked at, so a task with
    shuffled labels is like the task it was made of. `gradient_cosine` sees labels.

    Example:
        >>> cosines({"a": np.eye(3)[[0, 0]], "b": np.eye(3)[[0, 0]], "c": np.eye(3)[[1, 1]]}).round(2).tolist()
        [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    """

    of_labels = False
    paper = "Vu et al., 2020, arXiv:2005.00770"
    cost = "one pass of the encoder over each row, shared with the encoder's scores"

    def find(self, opened: Opened) -> tuple[np.ndarray, dict[str, Any]]:
        """See :meth:`Evidence.find`."""
        bar = tqdm(opened.tasks, desc="embedding", unit="task", disable=not opened.progress)
        found = cosines({task: features_of(opened, task).texts for task in bar})
        few = ["with two tasks nothing is taken off, so the cosine is high for any two"] if len(found) == 2 else []
        return found, {"notes": few}


def cosines(texts: dict[str, np.ndarray]) -> np.ndarray:
    """[m, m], from each task's [rows, hidden]; see :class:`Embedding`."""
    each = [part.astype(np.float64) for part in texts.values()]
    means = np.stack([part.mean(0) for part in each])
    doubt = np.array([part.var(0).sum() / max(1, len(part) - 1) for part in each])  # of a mean, squared
    centred = means - means.mean(0) if len(each) > 2 else means
    norms = np.linalg.norm(centred, axis=1)
    both = norms[:, None] * norms
    found = np.where(both > 0, centred @ centred.T / np.where(both > 0, both, 1.0), 0.0)
    apart = ((means[:, None] - means) ** 2).sum(-1)
    found[apart <= doubt[:, None] + doubt + 1e-12 * (means**2).sum(1).max()] = 1.0
    return np.clip(found, -1, 1)
