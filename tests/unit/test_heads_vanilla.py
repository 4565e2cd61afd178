"""Every head computes what the family's own class computes, with the same weights; and where its weights come from."""

import copy

import pytest
import torch
import transformers
from safetensors.torch import load_file

from nlp_mtl import registry
from nlp_mtl.errors import ConfigError, UnsupportedError
from nlp_mtl.heads import vanilla
from nlp_mtl.heads.labels import Where
from nlp_mtl.model import MultiTaskModel, make_heads
from nlp_mtl.packing import base_of
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import DECODERS, WORDS, tiny_encoder, tiny_model, tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

FAMILIES = ("bert", "roberta", "electra", "distilbert", "modernbert", "deberta-v2", "albert", "gpt2", "llama", "qwen2")
TOKEN_TYPES = ("bert", "roberta", "electra", "albert", "deberta-v2")
DATA = {"path": "nowhere/at_all"}
TEXTS = [
    "the cat is good",
    "rain",
    "it was a bad day for the old house in the city and the red dog",
    "no no 7",
    "yes !",
]
OTHERS = ["sun", "a good dog was not in the house, it was in the rain", "on to", "blue cat", "of the"]

TASKS = {
    "pair": Task(
        name="pair",
        head="sequence_classification",
        dataset=DATA,
        inputs=["a", "b"],
        target="label",
        labels=["x", "y", "z"],
    ),
    "number": Task(name="number", head="regression", dataset=DATA, inputs=["a"], target="score"),
    "several": Task(
        name="several", head="multi_label", dataset=DATA, inputs=["a"], target="many", labels=["p", "q", "r"]
    ),
    "tags": Task(
        name="tags",
        head="token_classification",
        dataset=DATA,
        inputs=["words"],
        target="tags",
        labels=["O", "B-X", "I-X"],
    ),
    "choice": Task(
        name="choice",
        head={"name": "multiple_choice", "choices": "options"},
        dataset=DATA,
        inputs=["a"],
        target="right",
    ),
    "answer": Task(name="answer", head="question_answering", dataset=DATA, inputs=["b", "a"], target="answers"),
    "hidden": Task(name="hidden", head="masked_lm", dataset=DATA, inputs=["a"]),
}
ROWS = {
    "a": TEXTS,
    "b": OTHERS,
    "label": [0, 1, 2, 1, 0],
    "score": [0.5, -2.0, 3.25, 0.0, 1.0],
    "many": [["p"], [], ["q", "r"], ["p", "q", "r"], ["r"]],
    "words": [text.split() for text in TEXTS],
    "tags": [["B-X", *["I-X"] * (len(text.split()) - 1)] for text in TEXTS],
    "options": [OTHERS[: 2 + i % 3] for i in range(5)],
    "right": [0, 1, 2, 0, 1],
    "answers": [{"text": [text.split()[-1]], "answer_start": [text.rindex(text.split()[-1])]} for text in TEXTS],
}


def random_weights(module, seed):
    """All weights far from their first values, biases and norms too, so that none may be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)


def mixed_batch(model):
    """One mixed batch of all rows for all tasks of a model; reads every head's own way from rows to targets."""
    from nlp_mtl.batches import collate

    made, readers = [], []
    for name, head in model.heads.items():
        columns = {column: ROWS[column] for column in head.needed_columns()}
        tokens = head.tokenize(columns, model.tokenizer, 64, Where(name, "train"))
        values = ROWS[head.task.target] if head.task.target else [None] * 5
        labels = head.place_labels(head.encode_labels(values, None, columns, Where(name, "train")), tokens)
        for number in range(5):
            row = {key: values[number] for key, values in tokens.items()}
            row["input_ids"], notes = head.corrupt(torch.tensor(row["input_ids"]).numpy(), row, (3, number))
            made.append({**row, **notes, f"labels:{name}": labels[number]})
            readers.append([name])
    return collate(made, readers, model.heads)


def the_vanilla_twin(model, task):
    """The family's own class, built from its config, with our encoder's and our head's weights, none left over."""
    head = model.heads[task]
    config = copy.deepcopy(model.config)
    for key, value in head.config_changes().items():
        setattr(config, key, value)
    config._attn_implementation = "eager"
    twin = getattr(transformers, head.auto_class).from_config(config).eval()
    encoder = {
        f"{twin.base_model_prefix}.{name}": value for name, value in base_of(model.sharing.encoder).state_dict().items()
    }
    own = {**encoder, **model.module_of(task).state_dict()}
    result = twin.load_state_dict(own, strict=False)
    assert not result.missing_keys, "a weight of the vanilla class that ours lacks"
    assert all(".pooler." in key for key in result.unexpected_keys), "ours has weights that the vanilla class lacks"
    return twin


def sequences(batch, family):
    lengths = batch["lengths"].tolist()
    rows = [
        {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])}
        for ids in batch["input_ids"].split(lengths)
    ]
    if family in TOKEN_TYPES and "token_type_ids" in batch:
        for row, types in zip(rows, batch["token_type_ids"].split(lengths), strict=True):
            row["token_type_ids"] = types[None]
    return rows


def vanilla_logits(twin, head, batch, target, family):
    rows = sequences(batch, family)
    if head.auto_class == "AutoModelForSequenceClassification":
        found = torch.cat([twin(**rows[i]).logits for i in target["sequences"].tolist()])
        return found.squeeze(-1) if head.task.head_name == "regression" else found
    if head.auto_class == "AutoModelForMultipleChoice":
        found = [
            twin(**{k: v[None] for k, v in rows[i].items()}).logits.flatten() for i in target["sequences"].tolist()
        ]
        parts = torch.cat(found).split(target["counts"].tolist())
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=float("-inf"))
    if head.auto_class == "AutoModelForQuestionAnswering":
        outs = [twin(**rows[i]) for i in target["sequences"].tolist()]
        parts = [torch.stack([out.start_logits[0], out.end_logits[0]], -1) for out in outs]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=float("-inf"))
    return torch.cat([twin(**row).logits[0] for row in rows])[target["positions"]]


def vanilla_loss(twin, head, batch, target, family):
    """The mean loss of the vanilla class over rows (or tokens): what it gives for labels, one row at a time."""
    rows = sequences(batch, family)
    total, count = 0.0, 0
    starts = torch.cat([torch.zeros(1, dtype=torch.long), batch["lengths"].cumsum(0)])
    if head.task.head_name in ("token_classification", "masked_lm"):
        for number, row in enumerate(rows):
            mine = (target["positions"] >= starts[number]) & (target["positions"] < starts[number + 1])
            if not mine.any():
                continue
            labels = torch.full_like(row["input_ids"], -100)
            labels[0, target["positions"][mine] - starts[number]] = target["labels"][mine]
            total += float(twin(**row, labels=labels).loss) * int(mine.sum())
            count += int(mine.sum())
        return total / count
    for place, number in enumerate(target["sequences"].tolist()):
        labels = target["labels"][place]
        if head.task.head_name == "question_answering":
            total += float(twin(**rows[number], start_positions=labels[0:1], end_positions=labels[1:2]).loss)
        else:
            total += float(twin(**rows[number], labels=labels[None]).loss)
    return total / len(target["sequences"])


@pytest.fixture(scope="module")
def families():
    """family → (model of all heads that it has, mixed batch, output); built once."""
    made = {}

    def build(family):
        if family not in made:
            wanted = [task for name, task in TASKS.items() if name != "hidden" or family not in DECODERS]
            model = tiny_model(wanted, family).eval()
            random_weights(model, 1)
            batch = mixed_batch(model)
            with torch.no_grad():
                made[family] = model, batch, model(**batch)
        return made[family]

    return build


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", list(TASKS))
def test_logits_and_loss_are_the_vanilla_classes_own(families, family, task):
    model, batch, out = families(family)
    if task not in model.heads or not model.heads[task].exportable:
        assert family in DECODERS
        assert task in ("hidden", "choice")
        assert not vanilla.has_class(
            {"hidden": "AutoModelForMaskedLM", "choice": "AutoModelForMultipleChoice"}[task], tiny_encoder(family)
        )
        return
    head, target = model.heads[task], batch["targets"][task]
    twin = the_vanilla_twin(model, task)
    with torch.no_grad():
        expected = vanilla_logits(twin, head, batch, target, family)
        ours = out["logits"][task]
        assert ours.shape == expected.shape
        finite = torch.isfinite(expected)
        assert torch.equal(finite, torch.isfinite(ours))
        scale = max(1.0, float(expected[finite].abs().max()))
        assert float((ours - expected)[finite].abs().max()) < 1e-6 * scale
        assert float(expected[finite].std()) > 1e-2, "logits that hardly differ would show nothing"
        if task != "choice":  # its vanilla class wants the same number of choices in all rows
            assert float(out["losses"][task]) == pytest.approx(
                vanilla_loss(twin, head, batch, target, family), rel=1e-5
            )


def test_the_loss_of_multiple_choice_is_the_vanilla_classes_own(families):
    model, batch, out = families("bert")
    twin = the_vanilla_twin(model, "choice")
    rows, target = sequences(batch, "bert"), batch["targets"]["choice"]
    losses = []
    for members, label in zip(target["sequences"].split(target["counts"].tolist()), target["labels"], strict=True):
        longest = max(rows[i]["input_ids"].shape[1] for i in members.tolist())
        padded = {
            key: torch.cat(
                [torch.nn.functional.pad(rows[i][key], (0, longest - rows[i][key].shape[1])) for i in members.tolist()]
            )[None]
            for key in rows[0]
        }
        with torch.no_grad():
            losses.append(float(twin(**padded, labels=label[None]).loss))
    assert float(out["losses"]["choice"]) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f in DECODERS])
def test_a_family_without_the_class_gets_our_own_head_and_says_so(family):
    model = tiny_model([TASKS["choice"], TASKS["pair"]], family)
    head = model.heads["choice"]
    assert not head.exportable
    assert family in head.why_not
    assert "AutoModelForMultipleChoice" in head.why_not
    assert model.heads["pair"].exportable
    assert model.heads["pair"].why_not == ""
    random_weights(model, 4)
    batch = mixed_batch(model)
    with torch.no_grad():
        scores = model(**batch)["logits"]["choice"]
        hidden = model.sharing.encode({"input_ids": batch["input_ids"]}, layout_of(batch), ["choice"])["choice"]
    module, target = model.module_of("choice"), batch["targets"]["choice"]
    expected = module.score(hidden.lasts(target["sequences"])).flatten()  # a decoder has read all at its last token
    assert torch.allclose(scores[torch.isfinite(scores)], expected, atol=1e-6)


def layout_of(batch):
    from nlp_mtl.layout import Layout

    return Layout(batch["lengths"].tolist())


def test_each_of_our_own_heads_has_its_own_first_weights():
    twin = TASKS["choice"].with_(name="choice2")
    model = tiny_model([TASKS["choice"], twin], "gpt2")
    again = tiny_model([twin, TASKS["choice"]], "gpt2")
    assert not torch.equal(model.module_of("choice").score.weight, model.module_of("choice2").score.weight)
    for name in ("choice", "choice2"):
        assert torch.equal(model.module_of(name).score.weight, again.module_of(name).score.weight)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f in DECODERS])
def test_masked_lm_on_a_decoder_is_refused_with_the_reason(family):
    with pytest.raises(UnsupportedError, match="does not see later words"):
        tiny_model([TASKS["hidden"]], family)


def test_an_answer_head_exists_for_the_decoders_that_have_the_class():
    """GPT-2's question-answering class, unlike the others, calls its encoder `transformer`."""
    assert tiny_model([TASKS["answer"]], "gpt2").module_of("answer").base_model_prefix == "transformer"


# -------------------------------------------------------------------------------------------------------- first weights


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2", "llama"])
def test_first_weights_depend_on_seed_and_task_only(family):
    alone = tiny_model([TASKS["pair"]], family, seed=3).module_of("pair").state_dict()
    torch.manual_seed(99)  # whatever was drawn before
    among = tiny_model([TASKS["tags"], TASKS["number"], TASKS["pair"]], family, seed=3).module_of("pair").state_dict()
    other_seed = tiny_model([TASKS["pair"]], family, seed=4).module_of("pair").state_dict()
    other_task = tiny_model([TASKS["pair"].with_(name="pear")], family, seed=3).module_of("pear").state_dict()
    matrices = [name for name, value in alone.items() if value.dim() > 1]
    assert matrices
    for name, value in alone.items():
        assert torch.equal(among[name], value)
        assert torch.isfinite(value).all()
    for name in matrices:
        assert not torch.equal(other_seed[name], alone[name])
        assert not torch.equal(other_task[name], alone[name])


def test_building_heads_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny_model([TASKS["pair"], TASKS["tags"]])
    tiny_model([TASKS["choice"]], "gpt2")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_first_weights_are_drawn_as_the_family_draws_them(family):
    model = tiny_model([TASKS["tags"], TASKS["pair"]], family)
    for task in ("tags", "pair"):
        config = copy.deepcopy(model.config)
        config.num_labels = 3
        twin = getattr(transformers, model.heads[task].auto_class).from_config(config)
        fresh = {n: v for n, v in twin.state_dict().items() if not n.startswith(f"{twin.base_model_prefix}.")}
        ours = model.module_of(task).state_dict()
        assert set(ours) <= set(fresh) | {n for n in ours if ".pooler." in n}
        for name, value in ours.items():
            if name.endswith("bias"):
                assert torch.equal(value, fresh[name])
            elif value.dim() > 1 and value.numel() >= 64:
                assert float(value.std()) == pytest.approx(float(fresh[name].std()), rel=0.5)


# -------------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in DECODERS])
def test_the_masked_lm_output_is_the_encoders_own_embeddings(family):
    model = tiny_model([TASKS["hidden"]], family)
    module, embeddings = model.module_of("hidden"), base_of(model.sharing.encoder).get_input_embeddings().weight
    tied = vanilla.tied_keys(module)
    assert len(tied) == 1
    assert module.get_parameter(next(iter(tied))) is embeddings
    assert module.get_output_embeddings().weight.data_ptr() == embeddings.data_ptr()
    assert sum(p is embeddings for p in model.parameters()) == 1, "counted and updated once"
    out = model(**mixed_batch(model))
    out["loss"].backward()
    reached = embeddings.grad.abs().sum(-1) > 0
    assert reached.all(), "every row of the output layer gets a gradient through the softmax"


def test_untied_where_the_config_says_so():
    encoder = tiny_encoder("bert", tie_word_embeddings=False)
    model = MultiTaskModel.assemble(
        encoder, tiny_tokenizer(), make_heads([TASKS["hidden"]]), base={"id": "x"}, max_length=64
    )
    module = model.module_of("hidden")
    assert vanilla.tied_keys(module) == set()
    assert module.get_output_embeddings().weight.data_ptr() != encoder.get_input_embeddings().weight.data_ptr()


def checkpoint_of(folder, auto_class, family="bert", **changes):
    """A vanilla checkpoint with a head, and its weights."""
    config = tiny_encoder(family, **changes).config
    with torch.random.fork_rng():
        torch.manual_seed(11)
        whole = getattr(transformers, auto_class).from_config(config)
    random_weights(whole, 2)
    whole.save_pretrained(folder)
    tiny_tokenizer(decoder=family in DECODERS).save_pretrained(folder)
    return whole.eval()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "albert"])
def test_a_pretrained_masked_lm_head_is_taken_over(tmp_path, family):
    whole = checkpoint_of(tmp_path, "AutoModelForMaskedLM", family)
    model = MultiTaskModel.from_base(tmp_path, [TASKS["hidden"], TASKS["pair"]], max_length=64)
    batch = mixed_batch(model)
    target = batch["targets"]["hidden"]
    with torch.no_grad():
        ours = model.eval()(**batch)["logits"]["hidden"]
        expected = vanilla_logits(whole, model.heads["hidden"], batch, target, family)
    assert float((ours - expected).abs().max()) < 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_pretrained_answer_head_is_taken_over_and_other_heads_start_fresh(tmp_path):
    whole = checkpoint_of(tmp_path, "AutoModelForQuestionAnswering")
    model = MultiTaskModel.from_base(tmp_path, [TASKS["answer"], TASKS["tags"]], max_length=64)
    assert torch.equal(model.module_of("answer").qa_outputs.weight, whole.qa_outputs.weight)
    fresh = tiny_model([TASKS["tags"]]).module_of("tags").classifier.weight
    assert torch.equal(model.module_of("tags").classifier.weight, fresh)
    for name, value in whole.bert.state_dict().items():
        assert torch.equal(base_of(model.sharing.encoder).state_dict()[name], value), name


def test_a_pretrained_classifier_of_another_size_is_not_forced_in(tmp_path):
    whole = checkpoint_of(tmp_path, "AutoModelForSequenceClassification", "roberta", num_labels=7)
    model = MultiTaskModel.from_base(tmp_path, [TASKS["pair"]], max_length=64)
    module = model.module_of("pair")
    assert module.classifier.out_proj.weight.shape == (3, 32)
    assert torch.equal(module.classifier.dense.weight, whole.classifier.dense.weight), "what fits is taken over"


def test_a_bare_encoder_has_no_head_to_take_over(tmp_path):
    encoder = tiny_encoder("bert")
    encoder.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = MultiTaskModel.from_base(tmp_path, [TASKS["hidden"]], max_length=64)
    fresh = tiny_model([TASKS["hidden"]])
    for name, value in fresh.module_of("hidden").state_dict().items():
        if name not in vanilla.tied_keys(fresh.module_of("hidden")):
            assert torch.equal(model.module_of("hidden").state_dict()[name], value)
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(base_of(model.sharing.encoder).state_dict()[name], value) for name, value in saved.items())


# -------------------------------------------------------------------------------------------------------------- pooling


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama", "deberta-v2"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_reads_exactly_those_tokens(family, pooling):
    model = tiny_model([TASKS["pair"]], family, heads={"pair": {"pooling": pooling}})
    random_weights(model, 5)
    batch = mixed_batch(model)
    head, target = model.heads["pair"], batch["targets"]["pair"]
    assert not head.exportable
    assert pooling in head.why_not
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "token_type_ids")}
    with torch.no_grad():
        packed = model.sharing.encode(inputs, layout_of(batch), ["pair"])["pair"]
        rows = [packed.hidden.split(batch["lengths"].tolist())[i] for i in target["sequences"].tolist()]
        read = torch.stack([{"mean": row.mean(0), "cls": row[0], "last": row[-1]}[pooling] for row in rows])
        assert torch.allclose(
            head.pooled(model.module_of("pair"), packed, target["sequences"]).squeeze(1), read, atol=1e-6
        )
        logits = model(**batch)["logits"]["pair"]
        if family == "bert":  # the pooler of the encoder is left out
            assert torch.allclose(logits, model.module_of("pair").classifier(read), atol=1e-6)


@pytest.mark.parametrize("pooling", ["family", "mean"])
def test_pooling_works_with_bf16_weights(pooling):
    model = tiny_model([TASKS["pair"], TASKS["choice"]], heads={"*": {"pooling": pooling}}).to(torch.bfloat16)
    out = model(**mixed_batch(model))
    out["loss"].backward()
    assert torch.isfinite(out["loss"])


def test_the_encoders_pooler_is_shared_by_default():
    model = tiny_model([TASKS["pair"], TASKS["number"]])
    assert not any("pooler" in name for name, _ in model.modules_.named_parameters())
    pooler = base_of(model.sharing.encoder).pooler.dense.weight
    for task in ("pair", "number"):
        model.zero_grad()
        model(**only(model, task))["loss"].backward()
        assert float(pooler.grad.abs().max()) > 0, task


def only(model, task):
    """A batch of one task's rows."""
    batch = mixed_batch(model)
    return {**batch, "targets": {task: batch["targets"][task]}}


@pytest.mark.parametrize("family", ["bert", "albert"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora": {"r": 2, "target_modules": ["query"]}},
        {"lora": {"r": 2, "target_modules": "all-linear"}},
        {"freeze": "*"},
    ],
)
def test_a_pooler_of_its_own_begins_as_the_encoders_and_learns_alone(family, settings):
    shared = tiny_model([TASKS["pair"], TASKS["number"]], family)
    model = tiny_model([TASKS["pair"], TASKS["number"]], family, heads={"pair": {"pooler": "own"}}, **settings)
    with torch.no_grad():
        ours, theirs = (m(**mixed_batch(m))["logits"] for m in (model, shared))
    assert torch.allclose(ours["pair"], theirs["pair"], atol=1e-7)
    assert torch.allclose(ours["number"], theirs["number"], atol=1e-7)
    own = {name: p for name, p in model.module_of("pair").named_parameters() if "pooler" in name}
    assert sorted(name.rsplit(".", 1)[-1] for name in own) == ["bias", "weight"], "the pooler's own two, no adapter's"
    model(**only(model, "pair"))["loss"].backward()
    for name, parameter in own.items():
        assert parameter.requires_grad, name
        assert float(parameter.grad.abs().max()) > 0, name
    for name, parameter in base_of(model.sharing.encoder).pooler.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name
    storages = {p.data_ptr() for p in model.sharing.parameters()}
    assert not storages & {p.data_ptr() for p in own.values()}


def test_arguments_of_pooling_are_checked():
    with pytest.raises(ConfigError, match="pooling"):
        tiny_model([TASKS["pair"]], heads={"pair": {"pooling": "max"}})
    with pytest.raises(ConfigError, match="pooler"):
        tiny_model([TASKS["pair"]], heads={"pair": {"pooler": "mine"}})


def test_modernbert_pools_as_its_config_says():
    for pooling in ("cls", "mean"):
        encoder = tiny_encoder("modernbert", classifier_pooling=pooling)
        heads = make_heads([TASKS["pair"]])
        model = MultiTaskModel.assemble(encoder, tiny_tokenizer(), heads, base={"id": "x"}, max_length=64)
        random_weights(model, 6)
        batch = mixed_batch(model)
        twin = the_vanilla_twin(model, "pair")
        with torch.no_grad():
            expected = vanilla_logits(twin, heads["pair"], batch, batch["targets"]["pair"], "modernbert")
            assert torch.allclose(model(**batch)["logits"]["pair"], expected, atol=1e-5)


def test_modernbert_with_mean_pooling_trains_multiple_choice():
    encoder = tiny_encoder("modernbert", classifier_pooling="mean")
    heads = make_heads([TASKS["choice"]])
    model = MultiTaskModel.assemble(encoder, tiny_tokenizer(), heads, base={"id": "x"}, max_length=64)
    random_weights(model, 6)
    batch = mixed_batch(model)
    twin = the_vanilla_twin(model, "choice")
    with torch.no_grad():
        expected = vanilla_logits(twin, heads["choice"], batch, batch["targets"]["choice"], "modernbert")
        assert torch.allclose(model(**batch)["logits"]["choice"], expected, atol=1e-5)
    model.train()(**batch)["loss"].backward()
    assert float(model.module_of("choice").classifier.weight.grad.abs().max()) > 0


# --------------------------------------------------------------------------------------------------------- shared heads


def test_two_tasks_share_one_head():
    second = TASKS["pair"].with_(name="second", head_of="pair", inputs=["b", "a"])
    model = tiny_model([TASKS["pair"], second, TASKS["number"]])
    assert model.module_of("second") is model.module_of("pair")
    assert sorted(model.modules_) == ["number", "pair"]
    reversed_order = tiny_model([second, TASKS["pair"]])
    assert reversed_order.module_of("second") is reversed_order.module_of("pair")
    batch = mixed_batch(model)
    model(**{**batch, "targets": {"second": batch["targets"]["second"]}})["loss"].backward()
    assert float(model.module_of("pair").classifier.weight.grad.abs().max()) > 0


def test_a_borrowed_head_is_as_exportable_as_its_owners():
    second = TASKS["choice"].with_(name="second", head_of="choice")
    model = tiny_model([TASKS["choice"], second], "gpt2")
    assert model.module_of("second") is model.module_of("choice")
    assert not model.heads["second"].exportable


def test_a_borrowed_head_speaks_of_its_owners_labels():
    """The numbers of the shared output layer mean the owner's labels, whatever order the borrower's data has."""
    owner = TASKS["pair"].with_(labels=["z", "x", "y"])
    borrower = owner.with_(name="second", head_of="pair", labels=None)
    model = tiny_model([owner, borrower])
    assert model.heads["second"].labels == ["z", "x", "y"]


def test_heads_that_cannot_share_are_refused():
    with pytest.raises(ConfigError, match="must agree"):
        tiny_model([TASKS["pair"], TASKS["number"].with_(head_of="pair")])
    with pytest.raises(ConfigError, match="not among the tasks"):
        tiny_model([TASKS["pair"].with_(head_of="nobody")])


def test_every_registered_head_is_covered_here():
    assert {task.head_name for task in TASKS.values()} >= {
        name
        for name in registry.heads
        if not name.startswith(("test_", "domain_")) and name != "seq2seq"  # test_domains.py, test_seq2seq.py
    }
    assert len(WORDS) > 10
