"""Run as its own process: load exported folders as a user does who has no nlp_mtl, and write what they say.

The folder it runs in holds ``asked.json`` (what to load and on which rows) and the pretrained models; the answers go
into ``answered.json``.
"""

from __future__ import annotations

import importlib.abc
import json
import sys
import warnings
from pathlib import Path


class NotInstalled(importlib.abc.MetaPathFinder):
    """As if nlp_mtl were not there, however this Python was set up."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nlp_mtl":
            raise ModuleNotFoundError("No module named 'nlp_mtl'")


sys.meta_path.insert(0, NotInstalled())
try:
    import nlp_mtl  # noqa: F401
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("nlp_mtl can be imported here, so nothing would be shown")

warnings.simplefilter("ignore")
import torch  # noqa: E402
import transformers  # noqa: E402

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load(item):
    """The model of a folder: vanilla, with code of its own, or a PEFT adapter on its recorded base."""
    auto = getattr(transformers, item["class"])
    if not item["adapter"]:
        return auto.from_pretrained(item["folder"], trust_remote_code=item["custom"]).eval()
    import peft

    if item["class"] in ("AutoModelForSequenceClassification", "AutoModelForTokenClassification") and item["auto"]:
        whole = getattr(peft, item["class"].replace("AutoModel", "AutoPeftModel"))
        return whole.from_pretrained(item["folder"], **item["more"]).eval()
    known = peft.PeftConfig.from_pretrained(item["folder"])
    base = auto.from_pretrained(known.base_model_name_or_path, revision=known.revision, **item["more"])
    return peft.PeftModel.from_pretrained(base, item["folder"]).eval()


def logits(item, model, tokenizer):
    """For each row the logits, made from raw text with the exported tokenizer alone; all rows padded together."""
    rows, kind = item["rows"], item["kind"]

    def read(*texts, **more):
        return tokenizer(*texts, padding=True, truncation=True, return_tensors="pt", **more)

    if kind in ("pair", "mean"):
        return model(**read([r["a"] for r in rows], [r["b"] for r in rows])).logits.tolist()
    if kind in ("number", "several"):
        return model(**read([r["a"] for r in rows])).logits.tolist()
    if kind == "tags":
        inputs = read([r["words"] for r in rows], is_split_into_words=True)
        found = model(**inputs).logits
        firsts = [[inputs.word_ids(i).index(w) for w in range(len(r["words"]))] for i, r in enumerate(rows)]
        return [found[i, places].tolist() for i, places in enumerate(firsts)]
    if kind == "choice":
        made = []
        for r in rows:
            inputs = read([r["a"]] * len(r["options"]), r["options"])
            made.append(model(**{k: v[None] for k, v in inputs.items()}).logits[0].tolist())
        return made
    if kind == "answer":
        inputs = read([r["b"] for r in rows], [r["a"] for r in rows])
        out = model(**inputs)
        both, lengths = torch.stack([out.start_logits, out.end_logits], -1), inputs["attention_mask"].sum(1).tolist()
        return [row[:n].tolist() for row, n in zip(both, lengths, strict=True)]
    inputs = read([r["masked"] for r in rows])
    found, masks = model(**inputs).logits, inputs["input_ids"] == tokenizer.mask_token_id
    return [row[mask].tolist() for row, mask in zip(found, masks, strict=True)]


def piped(item):
    """What a pipeline says, padding rows together."""
    rows, kind = item["rows"], item["kind"]
    more = {"trust_remote_code": True} if item["custom"] else {}
    if kind == "tags":
        pipe = transformers.pipeline("token-classification", item["folder"], ignore_labels=[], **more)
        made = []
        for row, found in zip(rows, pipe([" ".join(r["words"]) for r in rows], batch_size=3), strict=True):
            starts, place = [], 0
            for word in row["words"]:
                starts.append(place)
                place += len(word) + 1
            made.append([next(t["entity"] for t in found if t["start"] <= start < t["end"]) for start in starts])
        return made
    pipe = transformers.pipeline("text-classification", item["folder"], **more)
    texts = [{"text": r["a"], "text_pair": r["b"]} if kind in ("pair", "mean") else r["a"] for r in rows]
    return [{one["label"]: one["score"] for one in found} for found in pipe(texts, top_k=None, batch_size=3)]


def main():
    """Answer every item."""
    answers = []
    for item in json.loads(Path("asked.json").read_text(encoding="utf-8")):
        answer = {"name": item["name"]}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(item["folder"])
            model = load(item)
            answer["class"] = type(model.base_model.model if item["adapter"] else model).__name__
            answer["labels"] = [model.config.id2label[i] for i in range(model.config.num_labels)]
            answer["length"] = tokenizer.model_max_length
            with torch.inference_mode():
                answer["logits"] = logits(item, model, tokenizer)
            if item["pipeline"]:
                answer["piped"] = piped(item)
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        answers.append(answer)
    assert not [name for name in sys.modules if name.split(".")[0] == "nlp_mtl"]
    Path("answered.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
