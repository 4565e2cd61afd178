"""Kept features are those of the frozen encoder, and it is not asked for a text twice."""

from __future__ import annotations

import pytest
import torch

from nlp_mtl.batches import collate
from nlp_mtl.errors import ConfigError
from nlp_mtl.packing import base_of
from nlp_mtl.run import train
from nlp_mtl.testing import tiny_model
from tests.integration.tiny import config, state_of, write_base, write_tasks
from tests.unit.test_sharing import KIND, LORA, MOOD, TASKS, WORDS, logits, row

torch.set_num_threads(1)


def frozen(family="bert", **more):
    torch.manual_seed(0)
    return tiny_model(TASKS, family, **{"freeze": "*", **more}).eval()


def counted(model):
    """How many tokens went through the encoder."""
    seen = []
    base_of(model.sharing.encoder).register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"].numel()), with_kwargs=True
    )
    return seen


def batch_of(model, seeds):
    made, readers = [], []
    for seed in seeds:
        task = ["mood", "kind", "words"][seed % 3]
        label = {"mood": 1, "kind": 2, "words": torch.tensor([0, 1, 1, 0, 1]).numpy()}[task]
        made.append(row(6 + seed % 4, seed, **{task: label}))
        readers.append([task])
    return collate(made, readers, model.heads)


@pytest.mark.parametrize("family", ["bert", "gpt2", "deberta-v2"])
@pytest.mark.parametrize("heads", [{}, {"mood": {"layer": 1}, "kind": {"layer": "mix"}}], ids=["last", "layers"])
def test_kept_features_are_those_of_the_encoder(family, heads):
    plain, kept = frozen(family, heads=heads), frozen(family, heads=heads)
    kept.sharing.keep_features()
    seen = counted(kept)
    for seeds in ([0, 1, 2], [3, 1, 5], [0, 3, 5, 2], [7, 8], [8, 2, 7]):
        theirs, ours = (logits(model, batch_of(model, seeds)) for model in (plain, kept))
        for task, value in theirs.items():
            torch.testing.assert_close(ours[task], value, atol=1e-6, rtol=1e-5)
    before = len(seen)
    logits(kept, batch_of(kept, [0, 1, 2, 3, 5, 7, 8]))
    assert len(seen) == before
    assert kept.sharing.cache.texts == 7


def test_a_text_that_another_head_reads_elsewhere_is_computed_again():
    plain, kept = frozen(), frozen()
    kept.sharing.keep_features()
    tags = torch.tensor([0, 1, 1]).numpy()
    for task, label in (("mood", 1), ("words", tags), ("mood", 0)):
        one = collate([row(6, 1, **{task: label})], [[task]], kept.heads)
        torch.testing.assert_close(logits(kept, one)[task], logits(plain, one)[task], atol=1e-6, rtol=1e-5)


def test_a_text_that_two_heads_read_at_other_tokens_in_one_batch_is_right_for_both():
    plain, kept = frozen(), frozen()
    kept.sharing.keep_features()
    tags = torch.tensor([0, 1, 1]).numpy()
    seen = counted(kept)
    for parts in (
        [("mood", 1), ("kind", 2)],
        [("mood", 0), ("words", tags), ("kind", 1)],
        [("words", tags), ("mood", 1)],
    ):
        rows = [row(6, 2 if task == "kind" else 1, **{task: label}) for task, label in parts]
        batch = collate(rows, [[task] for task, _ in parts], kept.heads)
        theirs, ours = logits(plain, batch), logits(kept, batch)
        for task, value in theirs.items():
            torch.testing.assert_close(ours[task], value, atol=1e-6, rtol=1e-5)
    assert len(seen) == 2, "the third batch has nothing that was not read before"


def test_what_does_not_fit_is_computed_each_time(caplog):
    plain, kept = frozen(), frozen()
    kept.sharing.keep_features(most=10 * 32 * 4)
    for seeds in ([0, 3], [1, 2, 4], [2, 5, 8], [0, 3, 2]):
        theirs, ours = (logits(model, batch_of(model, seeds)) for model in (plain, kept))
        for task, value in theirs.items():
            torch.testing.assert_close(ours[task], value, atol=1e-6, rtol=1e-5)
    assert kept.sharing.cache.size <= 1024 * 32 * 4
    assert "are not kept" in caplog.text


@pytest.mark.parametrize("how", [{}, {"lora": LORA, "freeze": ()}, {"freeze": ["embeddings.*"]}], ids=str)
def test_an_encoder_that_is_trained_is_refused(how):
    model = tiny_model([MOOD, KIND, WORDS], **{"freeze": (), **how})
    with pytest.raises(ConfigError, match=r"keeps what a frozen encoder gives.*freeze: '\*'"):
        model.sharing.keep_features()


def test_a_run_on_kept_features_is_a_run_on_the_frozen_encoder(tmp_path):
    tasks, base = write_tasks(tmp_path / "data"), write_base(tmp_path / "base", dropout=0.1)
    training = {"num_train_epochs": 3, "max_steps": -1}
    plain, kept = (
        train(config(base, tasks, tmp_path / name, training=training, freeze="*", **more))
        for name, more in (("plain", {}), ("kept", {"cache_features": True}))
    )
    before = state_of(plain.model)
    for name, value in state_of(kept.model).items():
        torch.testing.assert_close(value, before[name], atol=1e-5, rtol=1e-4)
    assert kept.table() == plain.table()
    assert kept.model.sharing.cache.texts > 0


def test_words_that_are_hidden_at_random_are_refused(tmp_path):
    from nlp_mtl.taskfile import Task

    base = write_base(tmp_path / "base")
    (tmp_path / "texts.jsonl").write_text('{"text": "a good cat"}\n' * 8)
    data = {"path": "json", "data_files": {"train": "texts.jsonl", "validation": "texts.jsonl"}}
    guess = Task(name="guess", head="masked_lm", dataset=data, inputs=["text"], file=str(tmp_path / "x.yaml"))
    with pytest.raises(ConfigError, match="cache_features: guess reads its texts with other words hidden"):
        train(config(base, [guess], tmp_path / "run", freeze="*", cache_features=True))


def test_a_training_has_dropout_from_its_first_step(tmp_path):
    """A pretrained encoder comes in eval mode, and the model is put into training mode once."""
    from transformers import TrainerCallback

    seen = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            parts = [part for part in model.modules() if isinstance(part, torch.nn.Dropout)]
            seen.append(all(part.training for part in parts) and bool(parts))

    from nlp_mtl.config import load_config
    from nlp_mtl.starting import read_run, trainer_of

    tasks, base = write_tasks(tmp_path / "data"), write_base(tmp_path / "base", dropout=0.1)
    said = config(base, tasks, tmp_path / "run", training={"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2})
    trainer = trainer_of(*read_run(load_config(said)))
    trainer.add_callback(Look())
    trainer.train()
    assert seen == [True] * 4
