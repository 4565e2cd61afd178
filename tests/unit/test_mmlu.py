"""MMLU: against one option at a time with transformers, by subject and category, prompts that are too long."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import nlp_mtl as mtl
from nlp_mtl.cli import app
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.suites.letters import LETTERS, header, log_likelihoods, prompt, question
from nlp_mtl.suites.mmlu import MMLUScore, open_decoder, score_mmlu
from nlp_mtl.suites.subjects import CATEGORIES
from nlp_mtl.tasks import load_tasks
from nlp_mtl.testing import tiny_encoder, tiny_tokenizer
from tests.integration.tiny import WORDS, write_base

torch.set_num_threads(1)
SUBJECTS = ("anatomy", "philosophy", "sociology", "astronomy")


def call(*words):
    """A command; gives its exit code."""
    return app([str(word) for word in words], standalone_mode=False) or 0


def made_rows(count, draw, subjects=SUBJECTS):
    def text(most):
        return " ".join(draw.choice(WORDS, size=draw.integers(1, most)))

    return [
        {
            "question": text(9),
            "subject": subject,
            "choices": [text(4) for _ in range(4)],
            "answer": int(draw.integers(4)),
        }
        for subject in subjects
        for _ in range(count)
    ]


def write_decoder(folder, family, **changes):
    tiny = tiny_encoder(family, **changes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny.config)
    model.save_pretrained(folder)
    tiny_tokenizer(decoder=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("mmlu")
    draw = np.random.default_rng(0)
    data = folder / "data" / "cais" / "mmlu" / "all"
    data.mkdir(parents=True)
    for split, count in (("dev", 5), ("validation", 2), ("test", 3)):
        Dataset.from_list(made_rows(count, draw)).to_parquet(str(data / f"{split}-00000-of-00001.parquet"))
    files = [{"split": s, "path": f"all/{s}-*"} for s in ("dev", "validation", "test")]
    card = json.dumps({"configs": [{"config_name": "all", "data_files": files}]})
    (data.parent / "README.md").write_text(f"---\n{card}\n---\n")
    write_decoder(folder / "llama", "llama", max_position_embeddings=2048)
    return folder


def one_at_a_time(model, tokenizer, text):
    """The log-likelihood of each answered prompt's letter, plainly."""
    found = []
    start = tokenizer(text, return_tensors="pt").input_ids
    for letter in LETTERS:
        whole = tokenizer(f"{text} {letter}", return_tensors="pt").input_ids
        with torch.no_grad():
            logits = model(whole).logits.log_softmax(-1)
        places = range(start.shape[1], whole.shape[1])
        found.append(sum(float(logits[0, place - 1, whole[0, place]]) for place in places))
    return found


@pytest.mark.parametrize("shots", [0, 5])
def test_it_is_one_option_at_a_time(place, shots):
    from nlp_mtl.sources import load_rows

    found = score_mmlu(place / "llama", shots=shots, data_root=place / "data")
    model, tokenizer = open_decoder(place / "llama")
    splits = load_rows(load_tasks(["mmlu"])[0], data_root=place / "data")
    right = dict.fromkeys(SUBJECTS, 0)
    for row, scores in zip(splits["test"], found.scores, strict=True):
        solved = [one for one in splits["train"] if one["subject"] == row["subject"]][:shots]
        text = f"The following are multiple choice questions (with answers) about  {row['subject']}.\n\n"
        for one in [*solved, row]:
            text += one["question"]
            for letter, choice in zip("ABCD", one["choices"], strict=True):
                text += f"\n{letter}. {choice}"
            text += "\nAnswer:"
            if one is not row:
                text += f" {'ABCD'[one['answer']]}\n\n"
        wanted = one_at_a_time(model, tokenizer, text)
        assert scores == pytest.approx(wanted, abs=1e-4)
        right[row["subject"]] += int(np.argmax(wanted)) == row["answer"]
    assert found.right == right and found.rows == dict.fromkeys(SUBJECTS, 3) and not found.shortened


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen2"])
def test_other_decoders_and_a_batch_of_any_lengths(tmp_path, family):
    model, tokenizer = open_decoder(write_decoder(tmp_path, family))[0], tiny_tokenizer(decoder=True)
    rows = made_rows(2, np.random.default_rng(1))
    prompts = [prompt(row, [], tokenizer, None) for row in rows]
    assert all(len(ids) == 1 for one in prompts for ids in one.letters)
    found = log_likelihoods(model, prompts)
    for row, scores in zip(rows, found, strict=True):
        wanted = one_at_a_time(model, tokenizer, header(row["subject"]) + question(row, solved=False))
        assert scores == pytest.approx(wanted, abs=1e-4)


def test_letters_of_several_tokens_are_added_up(tmp_path):
    """A tokenizer that ends every text with a token of its own: an answer is its letter and that token."""
    model, _ = open_decoder(write_decoder(tmp_path, "gpt2"))
    tokenizer = tiny_tokenizer()
    row = made_rows(1, np.random.default_rng(2))[0]
    one = prompt(row, [], tokenizer, None)
    assert [len(ids) for ids in one.letters] == [2, 2, 2, 2]
    wanted = []
    for letter in one.letters:
        with torch.no_grad():
            logits = model(torch.tensor([[*one.context, *letter]])).logits[0].log_softmax(-1)
        last = len(one.context) - 1
        wanted.append(float(logits[last, letter[0]] + logits[last + 1, letter[1]]))
    assert log_likelihoods(model, [one])[0] == pytest.approx(wanted, abs=1e-4)


def test_prompts_that_are_too_long_lose_their_first_shots():
    tokenizer = tiny_tokenizer(decoder=True)
    *solved, row = made_rows(6, np.random.default_rng(3), ("anatomy",))
    whole = prompt(row, solved, tokenizer, None)
    most = len(whole.context) - 1
    shorter = prompt(row, solved, tokenizer, most)
    assert whole.shots == 5 and shorter.shots == 4 and not shorter.cut and len(shorter.context) <= most
    text = header("anatomy") + "".join(question(one, solved=True) for one in solved[1:]) + question(row, solved=False)
    assert shorter.context == tokenizer(text)["input_ids"]
    least = prompt(row, solved, tokenizer, 7)
    assert least.shots == 0 and len(least.context) == 7 and least.cut > 0
    assert least.context == prompt(row, [], tokenizer, None).context[-7:]


def test_a_short_context_is_said(place):
    write_decoder(place / "short", "llama", max_position_embeddings=128)
    found = score_mmlu(place / "short", data_root=place / "data", rows=1)
    assert found.shortened == 4 and found.rows == dict.fromkeys(SUBJECTS, 1)
    assert any("too long" in sentence for sentence in found.sentences())


def test_categories_and_means_by_hand():
    assert sum(map(len, CATEGORIES.values())) == 57
    right, rows = {"anatomy": 1, "sociology": 3, "philosophy": 0, "virology": 6}, {"anatomy": 2, "sociology": 4}
    found = MMLUScore("m", "so", "test", right, {**rows, "philosophy": 4, "virology": 10})
    assert found.micro() == pytest.approx(10 / 20)
    assert found.macro() == pytest.approx((0.5 + 0.75 + 0.0 + 0.6) / 4)
    assert found.categories() == {
        "humanities": ["philosophy"],
        "social sciences": ["sociology"],
        "other": ["anatomy", "virology"],
    }
    said = json.loads(found.as_json())
    assert said["categories"]["other"] == {"micro": pytest.approx(7 / 12), "macro": pytest.approx(0.55)}
    assert any("4 of 57 subjects" in sentence for sentence in found.sentences())


def test_an_encoder_answers_by_its_head(place):
    base = write_base(place / "base")
    task = load_tasks(["mmlu"])
    mtl.MultiTaskModel.from_base(base, task).save_pretrained(place / "run")
    found = score_mmlu(place / "run", data_root=place / "data")
    direct = mtl.evaluate(place / "run", "test", data_root=place / "data")["mmlu"]
    assert found.micro() == pytest.approx(direct.metrics["accuracy"])
    assert found.rows == dict.fromkeys(sorted(SUBJECTS), 3)
    with pytest.raises(ConfigError, match="--shots"):
        score_mmlu(place / "run", shots=5, data_root=place / "data")


def test_what_can_not_answer(place, tmp_path):
    bert = write_base(tmp_path / "bert")
    with pytest.raises(UnsupportedError, match="answered by a causal decoder"):
        score_mmlu(bert, data_root=place / "data")
    headless = write_base(tmp_path / "headless", "llama")
    with pytest.raises(UnsupportedError, match="language-model head"):
        score_mmlu(headless, data_root=place / "data")
    for wrong in ({"shots": 6}, {"rows": 0}, {"split": "train"}):
        with pytest.raises(ConfigError, match="mmlu"):
            score_mmlu(place / "llama", data_root=place / "data", **wrong)


def test_the_command(place, tmp_path, capsys):
    words = ["evaluate", place / "llama", "--suite", "mmlu", "--shots", "0", "--data-root", place / "data"]
    assert call(*words, "--rows", 2, "--json", tmp_path / "mmlu.json") == 0
    out = capsys.readouterr().out
    assert "social sciences" in out and "0-shot" in out and "4 of 57 subjects" in out
    assert json.loads((tmp_path / "mmlu.json").read_text())["rows"] == dict.fromkeys(sorted(SUBJECTS), 2)
    with pytest.raises(ConfigError, match="takes one model"):
        call(*words, place / "llama")
    with pytest.raises(ConfigError, match="go with --suite mmlu"):
        call("evaluate", place / "llama", "--suite", "glue", "--shots", 0)
