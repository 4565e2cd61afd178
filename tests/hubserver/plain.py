"""Run as its own process: do what a card says as a user does who has no nlp_mtl, and write the logits.

The folder it runs in holds ``asked.json``: code from a card, and rows; ``answered.json`` gets what the model says.
"""

from __future__ import annotations

import importlib.abc
import json
import sys
from pathlib import Path


class NotInstalled(importlib.abc.MetaPathFinder):
    """As if nlp_mtl were not there, however this Python was set up."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nlp_mtl":
            raise ModuleNotFoundError("No module named 'nlp_mtl'")


sys.meta_path.insert(0, NotInstalled())
import torch  # noqa: E402
import transformers  # noqa: E402

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def logits(known, rows):
    """One row at a time, padded by nothing."""
    model, tokenizer = known["model"].eval(), known["tokenizer"]
    found = []
    for row in rows:
        split = isinstance(row[0], list)
        inputs = tokenizer(*row, truncation=True, return_tensors="pt", is_split_into_words=split)
        with torch.inference_mode():
            out = model(**inputs).logits[0]
        if type(getattr(model, "base_model", model)).__name__ and out.dim() == 2:
            words = inputs.word_ids(0)
            out = out[[words.index(number) for number in range(len(row[0]))]]
        found.append(out.tolist())
    return found


answers = []
for item in json.loads(Path("asked.json").read_text(encoding="utf-8")):
    known: dict = {}
    try:
        exec(item["code"], known)
        if item.get("text"):
            answers.append([one["label"] for one in known["pipe"](item["text"])])
        elif item.get("rows"):
            answers.append(logits(known, item["rows"]))
        else:
            encoder = known["encoder"].eval()
            with torch.inference_mode():
                answers.append(encoder(input_ids=torch.tensor([[2, 9, 10, 3]])).last_hidden_state[0, 0].tolist())
    except Exception as error:
        answers.append({"error": f"{type(error).__name__}: {error}"})
Path("answered.json").write_text(json.dumps(answers), encoding="utf-8")
