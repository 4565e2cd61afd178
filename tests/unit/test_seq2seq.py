"""Decoders on the shared encoder: what they compute is what the vanilla classes compute."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, EncoderDecoderModel

from nlp_mtl.batches import collate
from nlp_mtl.data import load_data
from nlp_mtl.errors import ConfigError, DataError, UnsupportedError
from nlp_mtl.evaluation import Evaluator
from nlp_mtl.exporting.export import export_task
from nlp_mtl.exporting.texts import whole_writer
from nlp_mtl.heads import make_heads, targets
from nlp_mtl.heads.labels import Where
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.prediction import predict
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import tiny_encoder, tiny_model, tiny_tokenizer

FAMILIES = ("t5", "bart", "bert", "roberta", "distilbert")
ROWS = [
    {"en": "a red cat", "de": "eine rote katze"},
    {"en": "the old house is on the city , no ?", "de": "das alte haus"},
    {"en": "rain", "de": "regen fällt in der alten stadt auf die katze"},
    {"en": "the dog was not in the blue house", "de": "der hund war nicht im haus"},
]


def a_task(**changes):
    said = {
        "name": "to_german",
        "head": {"name": "seq2seq", "max_target_length": 16},
        "dataset": {"path": "none"},
        "inputs": ["en"],
        "target": "de",
        "examples": ROWS,
    }
    return Task(**{**said, **changes})


def with_head(**arguments):
    return a_task(head={"name": "seq2seq", "max_target_length": 16, **arguments})


def a_batch(model, task="to_german", rows=ROWS, labels=True):
    """A mixed batch of one task, and the same rows padded as a vanilla class reads them."""
    head = model.heads[task]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    where = Where(task, "train")
    tokens = head.tokenize(columns, model.tokenizer, 128, where)
    made = [{name: np.asarray(values[i]) for name, values in tokens.items()} for i in range(len(rows))]
    if labels:
        for row, ids in zip(made, head.encode_labels(columns[head.task.target], None, columns, where), strict=True):
            row[f"labels:{task}"] = ids
    batch = collate(made, [[task]] * len(rows), model.heads)
    ids = batch["input_ids"].split(batch["lengths"].tolist())
    order = batch["targets"][task]["sequences"].tolist()
    padded = torch.nn.utils.rnn.pad_sequence([ids[i] for i in order], True, 0)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids[i]) for i in order], True, 0)
    return batch, {"input_ids": padded, "attention_mask": mask}


def stirred(model):
    """Weights that are no starting values, so that nothing is zero by chance."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.15)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_our_loss_is_the_vanilla_models_loss(family):
    model = stirred(tiny_model([a_task()], family))
    batch, padded = a_batch(model)
    labels = batch["targets"]["to_german"]["labels"]
    vanilla = whole_writer(model, "to_german")
    kind = EncoderDecoderModel if family in ("bert", "roberta", "distilbert") else AutoModelForSeq2SeqLM
    assert isinstance(vanilla, kind) or type(vanilla) in AutoModelForSeq2SeqLM._model_mapping.values()
    expected = vanilla(**padded, labels=labels).loss
    assert float(model(**batch)["loss"].detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    with torch.no_grad():  # by parts, without keeping the logits
        assert float(model(**batch)["loss"]) == pytest.approx(float(expected.detach()), abs=1e-5)


@pytest.mark.parametrize(
    "generation",
    [{"min_new_tokens": 5}, {"num_beams": 3, "min_new_tokens": 5, "length_penalty": 0.6, "no_repeat_ngram_size": 2}],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_we_write_is_what_the_vanilla_model_generates(family, generation):
    model = stirred(tiny_model([with_head(generation=generation)], family))
    batch, padded = a_batch(model, labels=False)
    head = model.heads["to_german"]
    with torch.no_grad():
        ours = head.decode(head.predict(model(**batch)["logits"]["to_german"], {}), None)
        theirs = whole_writer(model, "to_german").generate(**padded, max_new_tokens=16, **generation)
    assert ours == [head.tokenizer.decode(ids.tolist(), skip_special_tokens=True).strip() for ids in theirs]
    assert all(ours)


@pytest.mark.parametrize("family", ["t5", "bart", "bert"])
def test_a_row_is_written_alike_alone_and_in_a_batch(family):
    model = stirred(tiny_model([a_task()], family))
    together = predict(model, ROWS)
    assert together == [predict(model, row) for row in ROWS]
    assert all(set(answer["to_german"]) == {"text"} for answer in together)


def test_targets_decoded_by_length_are_the_same_as_together(monkeypatch):
    model = stirred(tiny_model([with_head(max_target_length=64)], "t5"))
    rows = [{"en": "the cat", "de": "ja"}, ROWS[2], {"en": "no , the sun", "de": "nein"}, {"en": "rain", "de": "so"}]
    batch, _ = a_batch(model, rows=rows)
    together = model(**batch)
    together["loss"].backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    monkeypatch.setattr("nlp_mtl.heads.generating._WORTH", 1)
    parted = model(**batch)
    assert len(parted["logits"]["to_german"].parts) > 1
    parted["loss"].backward()
    ours, theirs = (out["logits"]["to_german"].logits() for out in (parted, together))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert all(torch.allclose(p.grad, expected[name], atol=1e-4) for name, p in model.named_parameters())


def test_a_packed_encoder_gives_decoders_what_padding_gives():
    """The one packed pass and the family's own padded pass: the same loss from the same weights."""
    model = stirred(tiny_model([a_task()], "bert"))
    batch, _ = a_batch(model)
    assert model.sharing.way == "packed"
    packed = float(model(**batch)["loss"].detach())
    model.sharing.way = "padded"
    assert float(model(**batch)["loss"].detach()) == pytest.approx(packed, abs=1e-5)


@pytest.mark.parametrize("lora", [None, {"r": 2, "target_modules": "all-linear"}])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_has_the_same_bits(family, lora, tmp_path, monkeypatch):
    model = tiny_model([a_task(), a_task(name="again", head_of="to_german")], family, lora=lora)
    base = model.sharing.encoder if lora is None else None
    stirred_heads = stirred(model) if base is not None else model.eval()
    if lora is not None:
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(0.01)
    before = predict(stirred_heads, ROWS)
    model.save_pretrained(tmp_path / "run")
    from nlp_mtl import opening

    def plain(*args, **kwargs):
        return tiny_tokenizer(), tiny_encoder(family)

    monkeypatch.setattr(opening, "open_base", plain)
    monkeypatch.setattr(opening, "find_recorded", lambda *a, **k: type("Found", (), {"folder": tmp_path})())
    loaded = MultiTaskModel.from_pretrained(tmp_path / "run")
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert predict(loaded, ROWS) == before
    assert loaded.module_of("again") is loaded.module_of("to_german")
    if family == "t5":
        table = loaded.sharing.encoder.get_input_embeddings().weight
        assert loaded.module_of("to_german").lm_head.weight is table, "one embedding, saved once, tied again"


def test_the_embedding_that_t5_shares_is_saved_once_and_trained_by_all(tmp_path):
    from safetensors import safe_open

    model = tiny_model([a_task()], "t5")
    model.save_pretrained(tmp_path / "run")
    with safe_open(tmp_path / "run" / "heads.safetensors", framework="pt") as heads:
        names = list(heads.keys())
    assert not [name for name in names if "shared" in name or "lm_head" in name or "embed_tokens" in name]
    shared = {id(p) for p in model.sharing.shared_parameters()}
    assert id(model.module_of("to_german").lm_head.weight) in shared
    with pytest.raises(UnsupportedError, match="one embedding in encoder, decoder and output layer"):
        tiny_model([a_task()], "t5", lora={"r": 2, "target_modules": ["shared", "embed_tokens"]})


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_run_folder_is_that_of_an_ordinary_encoder(family, tmp_path):
    """What `AutoModel` and PEFT load of it is the encoder as it was trained, beside a decoder that is not ours."""
    from peft import PeftModel
    from transformers import AutoModel

    model = stirred(tiny_model([a_task()], family))
    model.save_pretrained(tmp_path / "full")
    plain = AutoModel.from_pretrained(tmp_path / "full").state_dict()
    ours = model.sharing.encoder.state_dict()
    assert all(torch.equal(plain[name], value) for name, value in ours.items())
    tuned = stirred(tiny_model([a_task()], family, lora={"r": 2, "target_modules": "all-linear"}))
    tuned.save_pretrained(tmp_path / "lora")
    whole = AutoModel.from_config(tuned.config)
    loaded = PeftModel.from_pretrained(whole, tmp_path / "lora").state_dict()
    lora = {name: value for name, value in tuned.sharing.encoder.state_dict().items() if "lora_" in name}
    assert lora
    assert all(torch.equal(loaded[name], value) for name, value in lora.items())


def test_every_parameter_learns_and_the_loss_falls():
    for family in ("t5", "bart", "bert"):
        model = tiny_model([with_head(label_smoothing=0.1)], family).train()
        batch, _ = a_batch(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(15):
            optimizer.zero_grad()
            loss = model(**batch)["loss"]
            loss.backward()
            losses.append(float(loss.detach()))
            optimizer.step()
        silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert [n for n in silent if "pooler" not in n] == []
        assert losses[-1] < losses[0] - 0.5, family


def test_cut_targets_are_counted_and_have_no_end(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    task = a_task(dataset={"path": "json", "data_files": {"train": str(file)}}, examples=[])
    tokenizer = tiny_tokenizer()
    data = load_data(make_heads([task]), tokenizer, max_length=64)
    labels = data.pool_of("to_german", "train").labels("to_german")
    whole = [len(tokenizer(row["de"])["input_ids"]) for row in ROWS]
    assert [len(ids) for ids in labels] == [min(count, 16) for count in whole]
    assert [ids[-1] == tokenizer.sep_token_id for ids in labels] == [count <= 16 for count in whole]
    cut = sum(count > 16 for count in whole)
    assert 0 < cut < 4
    assert data.facts("to_german", "train")["cut_targets"] == cut
    assert any(f"{cut} with a target cut to max_target_length" in note for note in data.notes())


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_other_heads_read_the_encoder_of_such_a_family(family, tmp_path):
    """Not the family's classes that run the decoder too: the mean of the encoder's states, or T5's own for tokens."""
    model = stirred(tiny_model(["rte", "conll2003", "stsb", a_task()], family))
    batch, padded = a_batch(model, "rte", [{"sentence1": "a cat", "sentence2": "the old dog", "label": 0}] * 2)
    with torch.no_grad():
        logits = model(**batch)["logits"]["rte"]
        states = model.sharing.encoder(**padded).last_hidden_state
    expected = model.module_of("rte").score(states.mean(1))
    assert torch.allclose(logits, expected, atol=1e-5)
    assert not model.heads["rte"].exportable
    assert "reads the encoder alone" in model.heads["rte"].why_not
    assert model.heads["conll2003"].exportable == (family == "t5")
    if family == "t5":
        assert export_task(model, "conll2003", tmp_path / "tags").difference < 1e-5
    assert set(predict(model, {"sentence1": "a", "sentence2": "b", "tokens": ["a"], "en": "a"})) == set(model.tasks)
    with pytest.raises(UnsupportedError, match="fills in words with the decoder"):
        tiny_model(["mlm_text"], family)


# ------------------------------------------------------------------------------------------------ decoders of their own


def test_a_tokenizer_trained_on_targets_is_exact_cached_and_saved(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    head = {"name": "seq2seq", "target_tokenizer": {"vocab_size": 300}, "decoder": {"layers": 1}}
    task = a_task(dataset={"path": "json", "data_files": {"train": str(file)}}, head=head, examples=[])
    heads = make_heads([task, task.with_(name="also", head_of="to_german")])
    load_data(heads, tiny_tokenizer(), max_length=64)
    own = heads["to_german"].tokenizer
    assert heads["also"].tokenizer is own, "who uses the decoder reads its targets as it does"
    for text in ("Ein Mädchen fällt!", "Straße  und  ÄÖÜ", "日本"):
        assert own.decode(own(text)["input_ids"], skip_special_tokens=True).strip() == text
    again = make_heads([task])
    load_data(again, tiny_tokenizer(), max_length=64)
    assert targets.signature(again["to_german"].tokenizer) == targets.signature(own)
    model = tiny_model([task], "bert")  # finds it in the cache
    assert model.module_of("to_german").decoder.get_output_embeddings().weight.shape[0] == len(own)
    model.eval().save_pretrained(tmp_path / "run")
    file.unlink()
    loaded = MultiTaskModel.from_pretrained(tmp_path / "run")
    assert predict(loaded, ROWS) == predict(model, ROWS)
    done = export_task(tmp_path / "run", "to_german", tmp_path / "out")
    assert "target_tokenizer/tokenizer.json" in done.files


def test_a_pretrained_decoder_keeps_its_weights_and_gets_cross_attention(tmp_path):
    folder = tmp_path / "writer"
    decoder = tiny_encoder("bert", seed=7)
    decoder.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    model = tiny_model([with_head(decoder=str(folder))], "bert")
    made = model.module_of("to_german").decoder
    assert isinstance(made, type(AutoModelForCausalLM.from_config(made.config)))
    ours, theirs = dict(made.bert.named_parameters()), dict(decoder.named_parameters())
    same = [name for name in theirs if name in ours]
    assert len(same) > 20
    assert all(torch.equal(ours[name], theirs[name]) for name in same)
    assert any("crossattention" in name for name in ours)
    other = tiny_model([with_head(decoder=str(folder))], "bert")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)), "seeded"
    assert str(tmp_path) not in json.dumps(model.spec()), "the decoder is recorded by its name"
    model.save_pretrained(tmp_path / "run")
    for file in folder.iterdir():
        file.unlink()
    assert predict(MultiTaskModel.from_pretrained(tmp_path / "run"), ROWS) == predict(model, ROWS)


# -------------------------------------------------------------------------------------------- classification in words

ENTAIL = {
    "name": "in_words",
    "head": {"name": "seq2seq", "label_texts": ["yes good", "no"]},
    "dataset": {"path": "none"},
    "template": "rte a: {a} b: {b}",
    "target": "label",
    "labels": ["entailment", "not_entailment"],
    "examples": [{"a": "rain", "b": "sun", "label": 1}, {"a": "a cat", "b": "a cat", "label": 0}],
}


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_labels_are_chosen_by_the_likelihood_of_their_texts(family, tmp_path):
    model = stirred(tiny_model([Task(**ENTAIL)], family))
    head = model.heads["in_words"]
    assert head.metrics == ["accuracy"]
    assert head.gives_scores
    rows = [{"a": "rain", "b": "the sun", "label": 0}, {"a": "a dog", "b": "cat", "label": 1}]
    batch, padded = a_batch(model, "in_words", rows)
    vanilla = whole_writer(model, "in_words")
    with torch.no_grad():
        scores = head.predict(model(**batch)["logits"]["in_words"], batch["targets"]["in_words"])
        for label, text in enumerate(["yes good", "no"]):
            ids = torch.tensor([head.tokenizer(text)["input_ids"]] * 2)
            logs = vanilla(**padded, labels=ids).logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0].sum(-1)
            assert np.allclose([row[label] for row in scores], logs, atol=1e-4)
    assert head.references(head.encode_labels([1, 0], None, {}, Where("in_words", "x")), None) == [1, 0]
    answer = predict(model, rows[0])["in_words"]
    assert answer["label"] == ENTAIL["labels"][int(np.argmax(scores[0]))]
    assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert export_task(model, "in_words", tmp_path / "out").difference < 1e-5


def test_own_pairs_of_texts_become_a_task_that_works(tmp_path):
    from nlp_mtl.owndata.writing import new_task_file
    from nlp_mtl.taskreader import read_task
    from nlp_mtl.testing import check_rows, check_task

    lines = [f"{row['en']} {number}\t{row['de']} {number}" for number in range(10) for row in ROWS]
    (tmp_path / "pairs.tsv").write_text("\n".join(["en\tde", *lines]), encoding="utf-8")
    new_task_file(str(tmp_path / "pairs.tsv"), out=tmp_path / "pairs.yaml", text="en", label="de", head="seq2seq")
    task = read_task(tmp_path / "pairs.yaml")
    assert check_task(task) == []
    said, wrong = check_rows(task)
    assert not wrong
    assert "real rows work" in said


def test_evaluation_scores_texts_against_a_copy(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    task = a_task(
        dataset={"path": "json", "data_files": {"train": str(file), "validation": str(file)}},
        metrics=["chrf", "bleu", "rouge1", "rougeL", "exact_match"],
        examples=[],
    )
    model = tiny_model([task], "bart").eval()
    data = load_data(model.heads, model.tokenizer, max_length=64)
    found = Evaluator(data).evaluate(model)["to_german"]
    assert set(found.metrics) >= {"chrf", "bleu", "rouge1", "rougeL", "exact_match"}
    assert found.decoded == [answer["to_german"]["text"] for answer in predict(model, ROWS)]
    head = model.heads["to_german"]
    copied = [" ".join(row["en"].split()[:9]) for row in ROWS]  # the longest target has nine words
    assert found.trivial["chrf"] == head.score(copied, [[row["de"]] for row in ROWS])["chrf"]
    assert head.score([r["de"] for r in ROWS], [[r["de"]] for r in ROWS])["bleu"] == 1.0


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"generation": {"num_beam": 4}}, "no field 'num_beam' of GenerationConfig; did you mean 'num_beams'"),
        ({"generation": {"num_beams": 0}}, "`num_beams` is a whole number from 1, found 0"),
        ({"generation": 4}, "`generation` holds fields of GenerationConfig, found 4"),
        ({"decoder": {"layer": 2}}, "`decoder` takes no 'layer'; did you mean 'layers'"),
        ({"decoder": {"layers": 0}}, "`layers` is a whole number from 1, found 0"),
        ({"target_tokenizer": {"vocab_size": 10}}, "is from 260"),
        ({"target_tokenizer": {"size": 8000}}, "`target_tokenizer` is {vocab_size: 8000}, or a folder"),
        ({"max_target_length": 1}, "`max_target_length` is a whole number from 2 to 65536, found 1"),
        ({"generation": {"num_beams": True}}, "`num_beams` is a whole number from 1, found True"),
        ({"generation": {"num_beams": 2, "length_penalty": "x"}}, "`length_penalty` is a number, found 'x'"),
        ({"generation": {"repetition_penalty": -1.0}}, "`repetition_penalty` is a number above 0, found -1.0"),
        ({"generation": {"max_length": 1}}, "`max_length` is a whole number from 2, found 1"),
        ({"generation": {"num_return_sequences": "x"}}, "one text per row is kept; leave `num_return_sequences` out"),
        ({"generation": {"return_dict_in_generate": True}}, "the tokens alone are kept; leave `return_dict_in_gen"),
        ({"generation": {"stop_strings": "a"}}, "ends with the token that ends the targets; leave `stop_strings` out"),
        ({"generation": {"max_time": 1.0}}, "must not depend on how fast a machine is; leave `max_time` out"),
        ({"generation": {"do_sample": True}}, "so that one row has one answer, found sample; leave"),
        ({"generation": {"num_beams": 4, "num_beam_groups": 2}}, "greedily or with beams, so that one row has one"),
        ({"generation": {"prompt_lookup_num_tokens": 3}}, "found assisted generation; leave its fields out"),
        ({"label_smoothing": 1.0}, "`label_smoothing` is from 0 to under 1"),
        ({"label_texts": ["a"]}, "`label_texts` stand for the task's `labels`, found none"),
    ],
)
def test_wrong_arguments_are_refused_in_words(arguments, said):
    with pytest.raises(ConfigError) as error:
        make_heads([with_head(**arguments)])
    assert said in str(error.value)
    assert "task 'to_german'" in str(error.value)


def test_a_base_that_cannot_is_refused_with_the_way_out():
    with pytest.raises(UnsupportedError, match="needs an encoder whose tokens see the whole text"):
        tiny_model([a_task()], "gpt2")
    with pytest.raises(ConfigError, match="t5 has a decoder and a vocabulary of its own, found `decoder`"):
        tiny_model([with_head(decoder={"layers": 1})], "t5")
    with pytest.raises(ConfigError, match="found no `target`"):
        make_heads([a_task(target=None)])


def test_lengths_for_which_a_decoder_has_no_places_are_refused_before_training(tmp_path):
    """They would be met in the middle of a run: in training, or when the first evaluation writes."""
    tiny_encoder("roberta").save_pretrained(tmp_path / "writer")  # of 514 positions two are not counted
    tiny_tokenizer().save_pretrained(tmp_path / "writer")
    long = {"max_new_tokens": 513}
    with pytest.raises(ConfigError, match=r"`generation: max_new_tokens` is at most 512 for this decoder.*found 513"):
        tiny_model([with_head(decoder=str(tmp_path / "writer"), generation=long)], "bert")
    with pytest.raises(ConfigError, match="`max_target_length` is at most 160 for this decoder, which has 160 pos"):
        tiny_model([with_head(max_target_length=161)], "bart")
    for family, limit in (("bart", 160), ("bert", 600), ("t5", 600)):  # a new decoder gets as many as are needed
        head = with_head(generation={"min_new_tokens": limit, "max_new_tokens": limit})
        texts = predict(stirred(tiny_model([head], family)), ROWS[:1])[0]["to_german"]["text"]
        assert len(texts) > limit / 2, family


def test_a_label_is_not_written_as_nothing():
    with pytest.raises(ConfigError, match="`label_texts` is a list of 2 texts, one per label, found"):
        make_heads([Task(**{**ENTAIL, "head": {"name": "seq2seq", "label_texts": ["yes", " "]}})])


def test_heads_of_a_new_decoder_divide_its_width():
    with pytest.raises(ConfigError, match="task 'to_german': decoder: `heads` divides the encoder's width 32, found 3"):
        tiny_model([with_head(decoder={"heads": 3})], "bert")


def test_targets_that_are_no_text_are_named_by_row():
    model = tiny_model([a_task()], "t5")
    head = model.heads["to_german"]
    with pytest.raises(DataError, match=r"row 1.*is not text, found '3'; list `labels`") as error:
        head.encode_labels(["ja", 3, "  ", None], None, {}, Where("to_german", "train"))
    assert "row 2: target 'de' holds no text" in str(error.value)


def test_weights_in_parts_on_several_devices_are_refused_before_training():
    from types import SimpleNamespace

    from accelerate.utils import DistributedType

    from nlp_mtl.settings import check_sharded

    model = tiny_model([a_task()], "bert")
    sharded, alike = (
        SimpleNamespace(distributed_type=kind) for kind in (DistributedType.FSDP, DistributedType.MULTI_GPU)
    )
    check_sharded(model.sharing, alike, model.heads)
    check_sharded(model.sharing, sharded, tiny_model(["rte"], "bert").heads)
    with pytest.raises(UnsupportedError, match=r"tasks 'to_german' write texts: .* use DDP"):
        check_sharded(model.sharing, sharded, model.heads)


@pytest.mark.parametrize(("form", "said"), [("onnx", "one ONNX graph does not hold"), ("adapter", "say --as model")])
def test_forms_in_which_a_writer_cannot_leave(form, said, tmp_path):
    with pytest.raises(UnsupportedError, match=said):
        export_task(tiny_model([a_task()], "t5"), "to_german", tmp_path / "out", form)


@pytest.mark.parametrize("family", ["t5", pytest.param("bart", marks=pytest.mark.long), "bert"])
def test_an_exported_folder_writes_the_same_without_this_package(family, tmp_path):
    torch.manual_seed(0)  # of the adapter
    model = stirred(tiny_model([with_head(generation={"num_beams": 2})], family, lora={"r": 2}))
    ours = [answer["to_german"]["text"] for answer in predict(model, ROWS)]
    done = export_task(model, "to_german", tmp_path / "out")
    assert done.difference < 1e-5
    kind = "EncoderDecoderModel" if family == "bert" else "AutoModelForSeq2SeqLM"
    code = (
        f"import json, sys; from transformers import AutoTokenizer, {kind}\n"
        f"t = AutoTokenizer.from_pretrained({str(tmp_path / 'out')!r})\n"
        f"m = {kind}.from_pretrained({str(tmp_path / 'out')!r}).eval()\n"
        f"made = [m.generate(**t(x, return_tensors='pt', return_token_type_ids={family == 'bert'}))[0]\n"
        f"        for x in {[row['en'] for row in ROWS]!r}]\n"
        "assert 'nlp_mtl' not in sys.modules\n"
        "print(json.dumps([t.decode(ids, skip_special_tokens=True).strip() for ids in made]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(out.stdout.splitlines()[-1]) == ours


# ------------------------------------------------------------------------------------------------------ lent decoders

RTE_LIKE = {"labels": ["entailment", "not_entailment"], "target": "label"}
MOOD_LIKE = {"labels": ["good", "bad", "so so"], "target": "mood"}


def said_rows(folder):
    """The rows with labels of two kinds, in a file."""
    file = folder / "rows.jsonl"
    labels = [("entailment", "good"), ("not_entailment", "so so"), ("entailment", "bad"), ("not_entailment", "good")]
    rows = [{**row, "label": label, "mood": mood} for row, (label, mood) in zip(ROWS, labels, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": "json", "data_files": {"train": str(file), "validation": str(file)}}


@pytest.mark.parametrize("family", ["t5", "bert"])
def test_one_decoder_writes_for_tasks_of_several_kinds(family, tmp_path):
    """As T5: translation and two classifications in words, each with its own labels, texts and lengths."""
    data = said_rows(tmp_path)
    owner = a_task(dataset=data, examples=[])
    lengths = {"name": "seq2seq", "max_target_length": 9}
    rte = a_task(name="rte", head_of="to_german", dataset=data, examples=[], **RTE_LIKE)
    mood = a_task(
        name="mood",
        head_of="to_german",
        dataset=data,
        examples=[],
        head={**lengths, "label_texts": ["ja", "nein", "na"]},
        **MOOD_LIKE,
    )
    short = a_task(
        name="short",
        head_of="to_german",
        dataset=data,
        examples=[],
        head={**lengths, "generation": {"max_new_tokens": 2}},
    )
    tasks = [rte, owner, mood, short]
    model = tiny_model(tasks, family)
    assert len({id(model.module_of(task)) for task in model.tasks}) == 1
    heads = model.heads
    assert [heads[task].most for task in ("to_german", "rte", "mood", "short")] == [16, 16, 9, 9]
    assert heads["mood"].texts == ["ja", "nein", "na"] and heads["rte"].texts == RTE_LIKE["labels"]
    loaded = load_data(heads, model.tokenizer, max_length=64)
    found = Evaluator(loaded).evaluate(model.eval())
    assert {task: len(found[task].decoded) for task in found} == dict.fromkeys(model.tasks, 4)
    answers = predict(model, ROWS[0])
    assert answers["rte"]["label"] in RTE_LIKE["labels"] and answers["mood"]["label"] in MOOD_LIKE["labels"]
    assert len(heads["short"].predict(_written(model, "short"), {})[0]) <= 2
    model.save_pretrained(tmp_path / "run")
    again = MultiTaskModel.from_pretrained(tmp_path / "run")
    assert predict(again, ROWS) == predict(model, ROWS)
    assert export_task(model, "mood", tmp_path / "mood").difference < 1e-5


def _written(model, task):
    with torch.no_grad():
        return model(**a_batch(model, task, labels=False)[0])["logits"][task]


def test_what_a_lent_decoder_does_not_say_is_the_owners_but_for_its_labels_texts():
    owner = a_task(head={"name": "seq2seq", "label_texts": ["ja", "nein"]}, **RTE_LIKE)
    same, other = (a_task(name=name, head_of="to_german", head="seq2seq", **RTE_LIKE) for name in ("same", "other"))
    text = other.with_(labels=None, target="de")
    said = {"to_german": {"max_target_length": 12}, "other": {"generation": {"num_beams": 2}}}
    heads = make_heads([owner, same, text], said)
    assert [head.most for head in heads.values()] == [12, 12, 12]
    assert [head.texts for head in heads.values()] == [["ja", "nein"], ["ja", "nein"], None]
    assert [head.generation for head in heads.values()] == [{}, {}, {"num_beams": 2}]
    with pytest.raises(ConfigError, match="'other' uses the head of 'to_german', found `decoder`; say it there"):
        make_heads([owner, text], {"other": {"decoder": {"layers": 1}}})


def test_a_decoder_that_cannot_be_lent_is_told_with_the_way_out():
    owner = with_head(decoder={"layers": 1})
    other = a_task(name="other", head_of="to_german", head={"name": "seq2seq", "decoder": {"layers": 2}})
    with pytest.raises(ConfigError, match=r"found `decoder` .*2.* and .*1.*; leave it out in 'other'"):
        tiny_model([owner, other], "bert")
    long = a_task(name="other", head_of="to_german", head={"name": "seq2seq", "max_target_length": 300})
    with pytest.raises(ConfigError, match="task 'other': `max_target_length` is at most 160 for this decoder"):
        tiny_model([a_task(), long], "bart")
    with pytest.raises(ConfigError, match="found seq2seq and sequence_classification; leave out `head_of`"):
        tiny_model([a_task(head="sequence_classification", **RTE_LIKE), other], "bert")


def test_labels_that_are_no_text_are_refused_and_those_the_vocabulary_lacks_are_told(caplog):
    with pytest.raises(ConfigError, match="the label ' ' is no text to write; give all labels one in `label_texts`"):
        make_heads([a_task(labels=["good", " "], target="l")])
    with pytest.raises(ConfigError, match="`label_texts` is a list of 2 texts, one per label"):
        make_heads([a_task(labels=["good", "bad"], target="l", head={"name": "seq2seq", "label_texts": ["good", ""]})])
    with caplog.at_level("WARNING", "nlp_mtl"):
        tiny_model([a_task(labels=["good", "好"], target="l", examples=[])], "t5")
    assert "lacks a part of the label text '好'" in caplog.text


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("family", ["t5", "bart", "bert"])
def test_texts_are_the_same_in_whatever_parts_they_are_written(family, monkeypatch):
    """Long sources with beams are written in several calls, so that their keys and values fit into memory."""
    model = stirred(tiny_model([with_head(generation={"num_beams": 3, "min_new_tokens": 3})], family))
    together = predict(model, ROWS)
    kind, calls = type(model.module_of("to_german")), []
    generate = kind.generate

    def watched(self, *, encoder_outputs, **more):
        calls.append(tuple(encoder_outputs.last_hidden_state.shape[:2]))
        return generate(self, encoder_outputs=encoder_outputs, **more)

    monkeypatch.setattr(kind, "generate", watched)
    decoder = whole_writer(model, "to_german").get_decoder().config
    layers = {"t5": "num_decoder_layers", "bart": "decoder_layers", "bert": "num_hidden_layers"}[family]
    room = 3 * 2 * 2 * getattr(decoder, layers) * decoder.hidden_size  # two tokens' keys and values for each beam
    monkeypatch.setattr("nlp_mtl.heads.generating._KEPT", 10 * room)
    assert predict(model, ROWS) == together
    assert len(calls) > 1 and sum(rows for rows, _ in calls) == len(ROWS)
    assert all(rows == 1 or rows * length <= 20 for rows, length in calls)


def test_a_checkpoint_that_draws_its_words_writes_the_likeliest(tmp_path):
    model = stirred(tiny_model([a_task()], "t5"))
    expected = predict(model, ROWS)
    said = model.module_of("to_german").generation_config
    said.update(do_sample=True, temperature=3.0, top_k=40, num_return_sequences=2, return_dict_in_generate=True)
    assert predict(model, ROWS) == expected == predict(model, ROWS)
    assert export_task(model, "to_german", tmp_path / "out").difference < 1e-5


@pytest.mark.parametrize("limit", [{"max_new_tokens": 3}, {"max_length": 4}])
def test_a_tasks_limit_comes_before_the_checkpoints(limit):
    model = stirred(tiny_model([with_head(generation={"max_length": 9, "min_new_tokens": 8})], "t5"))
    expected = predict(model, ROWS)
    model.module_of("to_german").generation_config.update(**limit)
    assert predict(model, ROWS) == expected
    model.heads["to_german"].generation = {"max_new_tokens": 8, "min_new_tokens": 8}
    assert predict(model, ROWS) == expected, "a length counts the token that it begins with"


@pytest.mark.parametrize(
    "said", [{"forced_bos_token_id": 5000}, {"bad_words_ids": [[5], [-1]]}, {"eos_token_id": [2, 167]}]
)
def test_tokens_that_a_decoder_does_not_have_are_refused_before_training(said):
    (key,) = said
    with pytest.raises(ConfigError, match=f"task 'to_german': generation: `{key}` names tokens from 0 to"):
        tiny_model([with_head(generation=said)], "bert")
