"""RESULTS.md from what is recorded."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from markdown import load, table
from render_adapters import adapters, adapters_predict, merging
from render_sharing import sharing_speed, sharings_compared
from render_transfer import probing, studies
from render_verdicts import false_alarms, known_affinity, known_verdicts
from texts import texts

FIRST = {
    "cola": "matthews_correlation",
    "mrpc": "f1",
    "rte": "accuracy",
    "stsb": "spearman",
    "sst2": "accuracy",
    "conll2003": "span_f1",
}


def render(recorded: Path) -> str:
    """The whole page."""
    parts = [
        "# Results\n\nEvery figure has its command; `make verify` runs what is missing and writes this page from "
        "`recorded/`. Scores are on validation splits.",
        machine(recorded),
        scores(recorded),
        gpt(recorded),
        texts(recorded),
        speed(recorded),
        scaling(recorded),
        passes(recorded),
        adapters(recorded),
        adapters_predict(recorded),
        merging(recorded),
        sharing_speed(recorded),
        sharings_compared(recorded),
        balancing(recorded),
        comparison(recorded),
        probing(recorded),
        *studies(recorded),
        false_alarms(recorded),
        known_verdicts(recorded),
        known_affinity(recorded),
        prediction(recorded),
        serving(recorded),
        memory(recorded),
        startup(recorded),
        fuzz(recorded),
        notes(recorded),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine(recorded: Path) -> str:
    """What it was measured on."""
    found = load(recorded / "machine.json")
    if not found:
        return ""
    libraries = ", ".join(
        f"{name} {found[name]}" for name in ("torch", "transformers", "peft", "accelerate", "datasets")
    )
    cpu = f"{found['cpu']}, {found['cores']} cores ({', '.join(found['has'])})"
    return f"Machine: {cpu}, Python {found['python']}, {libraries}."


def scores(recorded: Path) -> str:
    """Multi-task beside single-task, full and LoRA."""
    file = recorded / "scores.jsonl"
    if not file.exists():
        return ""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    out = [
        "## One model for six tasks beside six models\n",
        "`python scripts/benchmarks/verify.py scores` runs both: ours by `scripts/runs/glue_ner.yaml` and "
        "`glue_ner_lora.yaml`, the rivals by `scripts/benchmarks/plain_scores.py` (a plain `transformers.Trainer` per "
        "task: the family's own class, batch 32, bf16, length grouping; learning rate 1e-4 full, 3e-4 LoRA). The same "
        "rows (SST-2: 16 000), 3 epochs, scores after the last epoch, mean of the seeds ± their standard deviation.",
    ]
    for tuning in ("full", "lora"):
        rows, ours_mean, plain_mean = [], [], []
        for task, metric in FIRST.items():
            ours = [100 * n["scores"][task][metric] for n in lines if n["who"] == "nlp_mtl" and n["tuning"] == tuning]
            alone = [n for n in lines if n["who"] == "plain" and n["tuning"] == tuning and n["task"] == task]
            plain, mark = [100 * n[metric] for n in alone], " *" if any("source" in n for n in alone) else ""
            if not ours or not plain:
                continue
            ours_mean.append(statistics.mean(ours))
            plain_mean.append(statistics.mean(plain))
            rows.append(
                [
                    task,
                    metric,
                    spread(ours),
                    spread(plain) + mark,
                    f"{ours_mean[-1] - plain_mean[-1]:+.1f}",
                    f"{len(ours)} / {len(plain)}",
                ]
            )
        if not rows:
            continue
        if len(rows) == len(FIRST):
            a, b = statistics.mean(ours_mean), statistics.mean(plain_mean)
            rows.append(["**mean**", "", f"**{a:.1f}**", f"**{b:.1f}**", f"**{a - b:+.1f}**", ""])
        name = {"full": "Full fine-tuning", "lora": "LoRA, r 8 on all linear layers"}[tuning]
        out.append(
            f"### {name}\n\n" + table(["task", "metric", "one model", "six models", "difference", "seeds"], rows)
        )
    if any("source" in line for line in lines):
        sources = sorted({line["source"] for line in lines if "source" in line})
        out.append(f"\\* {'; '.join(sources)}")
    return "\n\n".join(out)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def gpt(recorded: Path) -> str:
    """The decoder run."""
    found = load(recorded / "gpt.json")
    if not found:
        return ""
    rows = []
    for task, metrics in found["validation"].items():
        first = next(iter(metrics))
        rows.append([task, first, f"{metrics[first]:.3f}", f"{found['trivial'][task][first]:.3f}"])
    took = f" ({found['training_seconds'] / 60:.0f} minutes)" if "training_seconds" in found else ""
    head = "## A decoder: SmolLM2-135M with LoRA on two tasks\n\n"
    return head + f"`{found['command']}`{took}\n\n" + table(["task", "metric", "score", "trivial baseline"], rows)


def speed(recorded: Path) -> str:
    """Training speed beside rivals."""
    found = load(recorded / "train_speed.json")
    if not found:
        return ""
    rows = []
    for name, values in found["tokens_per_s"].items():
        over = found["ours_over"].get(name, "")
        if isinstance(over, dict):
            over = f"{over['median']} ({over['least']} to {over['most']})"
        rows.append([name, f"{found['median'][name]:.0f}", " ".join(f"{value:.0f}" for value in values), str(over)])
    peak, shares = found["bf16_peak_gflops"], found["share_of_peak"]
    if not isinstance(shares, dict):
        shares = {"nlp_mtl, full": shares}
    said = "; ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    more = f"Share of the bf16 matrix peak of this machine ({peak} GFLOP/s): {said}."
    missing = f" Not run: {', '.join(found['not_run'])}." if found["not_run"] else ""
    counted = f" from step {found['untimed'] + 1} on" if "untimed" in found else ""
    looks = "".join(
        f"\n\nLooked over for {who} (a few steps of {found['look_rows']} rows a task, tokens per second): "
        + "; ".join(f"{how} {value:.0f}" for how, value in sorted(seen.items(), key=lambda item: -item[1]))
        + "."
        for who, seen in found.get("look", {}).items()
    )
    return (
        f"## Training speed\n\n`{found['command']}`\n\n{found['rows']} rows of each of five tasks, "
        f"real tokens per second{counted}, {found['rounds']} round(s) in turn.\n\n"
        + table(["who", "median", "rounds", "nlp_mtl (full, or LoRA beside peft) is so many times faster"], rows)
        + f"\n\n{more}{missing}{looks}{profiles(recorded)}"
    )


def profiles(recorded: Path) -> str:
    """Where the time of a step goes."""
    found = load(recorded / "train_profile.json")
    parts = []
    for name, one in (found or {}).get("profiles", {}).items():
        rows = [
            [f"`{what}`", str(calls), str(ms), f"{100 * part:.1f} %"] for what, calls, ms, part in one["operations"]
        ]
        head = f"\n\n### Where a step's time goes: {name}\n\n{one['step_ms']} ms a step, "
        head += f"{100 * one['in_products']:.0f} % in matrix products (`train_speed.py … --profile`).\n\n"
        parts.append(head + table(["operation", "calls", "ms", "share"], rows[:12]))
    return "".join(parts)


def scaling(recorded: Path) -> str:
    """The cost of a step by the number of tasks."""
    found = load(recorded / "scaling.json")
    if not found:
        return ""
    rows = [
        [name, count, f"{one['median'][count]:.1f}", f"{over['median']} ({over['least']} to {over['most']})"]
        for name, one in found["tables"].items()
        for count, over in one["ratio"].items()
    ]
    return (
        f"## The cost of a step by the number of tasks\n\n`{found['command']}`\n\nThe same rows behind all, "
        f"{found['batch']} a step.\n\n" + table(["kinds, tuning", "tasks", "µs per token", "over one task"], rows)
    )


def passes(recorded: Path) -> str:
    """Memory and speed of large steps, by the tokens of one pass."""
    found = load(recorded / "passes.json")
    if not found:
        return ""
    rows = [
        ["one pass" if budget == "none" else budget, f"{one['peak_mb']:g}", f"{one['tokens_per_s']:g}"]
        for budget, one in found["tokens_per_pass"].items()
    ]
    return (
        f"## A large step in passes\n\n`{found['command']}`\n\nSteps of {found['tokens_per_batch']} tokens with "
        f"`tokens_per_pass`, {found['rounds']} round(s); memory less what the imports took.\n\n"
        + table(["tokens per pass", "peak MB", "real tokens/s"], rows)
    )


def balancing(recorded: Path) -> str:
    """A step that weighs the tasks' gradients beside one with equal weights."""
    found = load(recorded / "balancing_speed.json")
    if not found:
        return ""
    rows = [
        [
            name,
            *(f"{one['median'][way]:.1f}" for way in one["median"]),
            *(f"{over['median']} ({over['least']} to {over['most']})" for over in one["ratio"].values()),
        ]
        for name, one in found["settings"].items()
    ]
    ways = list(next(iter(found["settings"].values()))["median"])
    head = ["", *(f"{way}, µs a token" for way in ways), *(f"{way} / equal" for way in ways)]
    keep = [i for i, title in enumerate(head) if title != "equal / equal"]
    return (
        "## Weighing the tasks' gradients\n\n`"
        + found["command"]
        + "`\n\n"
        + table([head[i] for i in keep], [[row[i] for i in keep] for row in rows])
        + "\n\nAsked: at most 1.25 (LoRA, 5 tasks), 1.6 (full), 1.6 (LoRA, 20 tasks)."
    )


def comparison(recorded: Path) -> str:
    """Balancers over seeds."""
    file = recorded / "balancing.md"
    if not file.exists():
        return ""
    return (
        "## Balancers compared\n\n`nlp-mtl compare scripts/studies/balancing.yaml data_root=DIR`\n\n"
        + file.read_text(encoding="utf-8").strip()
    )


def prediction(recorded: Path) -> str:
    """Speed of prediction beside pipelines, and its memory over a long file."""
    found = load(recorded / "predict_speed.json") or {}
    parts = []
    if "seconds" in found:
        rows = [
            [
                name,
                f"{found['median'][name]:.2f}",
                " ".join(f"{value:.2f}" for value in values),
                str(found["tokens_per_s"][name]),
                str(found["ours_over"].get(name, "")),
            ]
            for name, values in found["seconds"].items()
        ]
        head = ["who", "median s", "rounds", "real tokens/s", "one model is so many times faster"]
        ways = dict.fromkeys(
            f"batches of {way['batch_size']}, {way['attention']} attention, texts {way['order']}"
            for way in found["pipelines"].values()
        )
        apart = found["apart"]
        parts.append(
            f"`{found['command']}`\n\nAnswers of {', '.join(found['tasks'])} for {found['texts']} real texts "
            f"({found['tokens']} tokens) in bf16 on {found['threads']} threads, {found['rounds']} interleaved "
            f"round(s). The pipelines in their best way of those tried: {'; '.join(ways)}.\n\n"
            + table(head, rows)
            + f"\n\nThe same weights in both, trained for some seconds: {100 * apart['same_label']:.2f} % of the "
            f"labels are the same, and the scores at most {apart['largest_score_difference']} apart. In float32 "
            "ours equal one-at-a-time prediction within 1e-5 (`tests/unit/test_predict_stream.py`)."
        )
    if "memory" in found:
        held = found["memory"]
        rows = [[count, str(one["peak_mb"]), str(one["over_loaded_mb"])] for count, one in held["texts"].items()]
        rows.append(["ratio", str(held["ratio"]), str(held["ratio_over_loaded"])])
        head = ["texts", "peak MB", "MB above imports and the loaded model"]
        parts.append(f"`{held['command']}`: `nlp-mtl predict --file`, a fresh process each.\n\n" + table(head, rows))
    return "## Prediction\n\n" + "\n\n".join(parts) if parts else ""


def serving(recorded: Path) -> str:
    """`nlp-mtl serve` under load, and one task beside all."""
    found = load(recorded / "serve_load.json")
    if not found:
        return ""
    columns = ["requests_per_s", "p50", "p95", "p99"]
    rows = [
        [name, *(str(one[column]) for column in columns), " ".join(map(str, one["rounds"]))]
        for name, one in found["speed"].items()
    ]
    counts = found["mixed"]
    over = "; ".join(f"{ratio} × {name}" for name, ratio in found["over"].items())
    parts = [
        f"`{found['command']}`\n\nOne text a request, {len(found['tasks'])} tasks an answer, {found['texts']} texts "
        f"over loopback, {found['threads']} threads and the client on the same cores; medians of {found['rounds']} "
        "round(s). A fresh length of text costs more the first time, so every server has answered all of them before.",
        table(["clients", "requests/s", "p50 ms", "p95 ms", "p99 ms", "requests/s of each round"], rows),
        f"The most clients over the others: {over}. Valid and invalid requests mixed, float32: {counts['valid']} and "
        f"{counts['invalid']}, {counts['wrong']} wrong and {counts['lost']} lost, each answer compared with `predict`.",
        "### One task against all\n\n"
        + table(
            ["`predict --task`", "parameters of heads", "ms for one text", "texts/s"],
            [[name, *map(str, one.values())] for name, one in found["one_task"].items()],
        ),
    ]
    if sizes := load(recorded / "export_size.json"):
        for what in ("MB of weights", "ms for one text"):
            rows = [
                [name, *("" if value is None else str(value) for value in row)] for name, row in sizes[what].items()
            ]
            parts.append(table([what, *sizes["columns"]], rows))
        parts.append(f"`{sizes['command']}`")
    return "## Serving, and one task alone\n\n" + "\n\n".join(parts)


def memory(recorded: Path) -> str:
    """Peak memory."""
    found = load(recorded / "memory.json")
    if not found:
        return ""
    rows = []
    for tuning in ("full", "lora"):
        part = found.get(tuning, found if tuning == "full" else None)
        if part is None or "ours" not in part:
            continue
        runs = [("nlp_mtl, five tasks", part["ours"], "")]
        runs += [(line["peer"], line, str(part["ratio"][task])) for task, line in part["plain"].items()]
        runs += [(f"nlp_mtl, {task} alone", line, "") for task, line in part.get("ours_single", {}).items()]
        for name, line, over in runs:
            whole = str(line.get("absolute_mb", ""))
            rows.append([tuning, name, str(line["tokens_per_step"]), str(line["peak_mb"]), whole, over])
        if "over_largest" in part:
            most = part["over_largest"]
            said = f"**{most['less_imports']}** (as it is {most['absolute']})"
            rows.append([tuning, "five tasks over the largest plain run", "", "", "", said])
    return f"## Peak memory\n\n`{found['command']}`; less what the imports took, and as it is.\n\n" + table(
        ["tuning", "who", "tokens per step", "peak MB", "with imports", "five tasks over it"], rows
    )


def startup(recorded: Path) -> str:
    """Start-up."""
    found = load(recorded / "startup.json")
    if not found:
        return ""
    rows = [
        [name, ", ".join(f"{k} {v}" for k, v in value.items())] for name, value in found.items() if name != "command"
    ]
    return f"## Start-up\n\n`{found['command']}`\n\n" + table(["what", "measured"], rows)


def fuzz(recorded: Path) -> str:
    """Inputs made to break readers and collation."""
    found = load(recorded / "fuzz.json")
    if not found:
        return ""
    abouts: dict[str, list[int]] = {}
    for one in found["laws"].values():
        abouts.setdefault(one["about"], []).append(one["examples"])
    rows = [[about, str(len(counts)), f"{sum(counts):,}".replace(",", " ")] for about, counts in abouts.items()]
    rows.append(["**all**", str(len(found["laws"])), f"**{found['examples']:,}**".replace(",", " ")])
    broken = "".join(f"\n- {one['law']}: {one['what']} ({one['times']} times)" for one in found["findings"])
    said = f"{len(found['findings'])} findings:{broken}" if broken else "No finding"
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"## Inputs made to break readers and collation\n\n`{found['command']}`: {found['minutes']:g} minutes, seed "
        f"{found['seed']}, begun {found['began'][:10]}. {said}"
        + ("" if broken else " (an exception that is no message of ours, a row not read back, a crash, a hang).")
        + "\n\n"
        + table(["what", "laws", "examples"], rows)
        + f"\n\n{versions}"
    )


def notes(recorded: Path) -> str:
    """What a person has to say about the figures."""
    file = recorded / "notes.md"
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""
