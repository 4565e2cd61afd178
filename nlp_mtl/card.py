"""The model card of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def card(spec: Mapping[str, Any]) -> str:
    """What stands in a run folder's README.md."""
    base, lora = spec["base"]["id"], spec["strategies"].get("lora")
    names = [task["name"] for task in spec["tasks"]]
    kind = "adapter" if lora else "encoder"
    head = [
        "---",
        "library_name: " + ("peft" if lora else "transformers"),
        f"base_model: {base}",
        "tags: [nlp-mtl, multi-task]",
        "---",
    ]
    lines = [
        *head,
        "",
        f"# One {kind} for {len(names)} tasks",
        "",
        f"Trained with nlp_mtl on {', '.join(names)}, from `{base}`.",
        "",
        "```python",
        "import nlp_mtl as mtl",
        'model = mtl.MultiTaskModel.from_pretrained("this/folder")',
        'mtl.predict(model, "A text.")',
        "```",
        "",
    ]
    return "\n".join(lines)
