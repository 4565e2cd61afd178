"""``nlp-mtl methods``."""

from __future__ import annotations

from typing import Annotated

import typer

from nlp_mtl.screen import print_table

# Methods that are keys of a run file by themselves, with one way each and nothing to register.
KEYS = (
    ("distillation", "tasks learn from a teacher beside their labels", "Hinton et al., 2015, arXiv:1503.02531"),
    ("pseudo_labels", "rows take the labels that the start model is sure of", "Yarowsky, 1995, 10.3115/981658.981684"),
    (
        "importance_weighting",
        "rows like the target are shown more",
        "Shimodaira, 2000, 10.1016/S0378-3758(00)00115-4",
    ),
    ("cache_features", "heads learn on what a frozen encoder gave once", "Peters et al., 2019, arXiv:1903.05987"),
)
EPILOG = "nlp-mtl methods\n\nnlp-mtl methods balancer"


def methods(
    kind: Annotated[
        str | None, typer.Argument(help="head, sharing, sampler, balancer, regularizer, tuning, metric, …")
    ] = None,
) -> None:
    """Every strategy: name, one line, paper."""
    from nlp_mtl import registry
    from nlp_mtl.errors import UnknownNameError

    kinds = {known.kind: known for known in registry.ALL}
    if kind is not None and kind not in kinds:
        raise UnknownNameError("kind of strategy", kind, kinds)
    for known in kinds.values() if kind is None else [kinds[kind]]:
        print(f"\n{known.kind}")
        head: tuple[str, ...] = ("name", "what it is", "paper")
        rows = [(n, known.summary(n), known.paper(n)) for n in known.names()]
        if kind is not None and any(known.cost(n) for n in known.names()):
            head = (*head[:2], "needs", "paper", "costs")
            rows = [(*row[:2], known.needs(row[0]), row[2], known.cost(row[0])) for row in rows]  # type: ignore[misc]
        print_table(head, rows, indent="  ")
        for name, why in known.left_out().items():
            print(f"  not {name}: it {why}")
    if kind is None:
        print("\nkeys of a run file")
        print_table(("name", "what it is", "paper"), KEYS, indent="  ")
