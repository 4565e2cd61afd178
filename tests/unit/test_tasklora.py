"""One adapter per task in one pass: what each task sees is what PEFT gives with that task's adapter alone."""

import copy
import pickle
import threading

import pytest
import torch
from peft import LoraConfig, PeftModel

from nlp_mtl.adapters import add_lora
from nlp_mtl.batches import collate
from nlp_mtl.errors import ConfigError, RunFolderError, UnsupportedError
from nlp_mtl.folding import folded
from nlp_mtl.kernels import building
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.packing import base_of
from nlp_mtl.prediction import predict
from nlp_mtl.taskfile import Task
from nlp_mtl.tasklora import Owners, linear_layers, owners_of
from nlp_mtl.testing import DECODERS, tiny_encoder, tiny_tokenizer

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

DATA = {"path": "some/data"}
TASKS = [
    Task(name="mood", head="sequence_classification", dataset=DATA, inputs=["a"], target="l", labels=["x", "y", "z"]),
    Task(name="length", head="regression", dataset=DATA, inputs=["a"], target="n"),
    Task(name="tags", head="token_classification", dataset=DATA, inputs=["w"], target="t", labels=["O", "B-X", "I-X"]),
]
ALL = {"r": 3, "target_modules": "all-linear"}
FAMILIES = ["bert", "roberta", "electra", "distilbert", "modernbert", "albert", "deberta-v2", "gpt2", "llama", "qwen2"]


def heads_of(tasks=TASKS):
    from nlp_mtl.heads import make_heads

    return make_heads(tasks)


def made(family="bert", *, tasks=TASKS, seed=0, **tuning):
    """A model as if trained: every adapter moved."""
    torch.manual_seed(seed)  # of LoRA's first weights
    tuning = tuning or {"lora": {"r": 2, "target_modules": "all-linear"}, "task_lora": ALL}
    encoder, tokenizer = tiny_encoder(family), tiny_tokenizer(decoder=family in DECODERS)
    model = MultiTaskModel.assemble(encoder, tokenizer, heads_of(tasks), seed=seed, **tuning)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def batch_of(model, readers):
    """Rows of random tokens, each with the tasks that read it."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for number, tasks in enumerate(readers):
        length = 4 + number % 3 * 3
        ids = torch.randint(8, 60, (length,), generator=generator).numpy()
        row = {"input_ids": ids, "lengths": [length]}
        if "token_type_ids" in model.tokenizer.model_input_names:
            row["token_type_ids"] = ids * 0
        for task in tasks:
            label = {"mood": number % 3, "length": number / 7, "tags": [i % 3 for i in range(length)]}[task]
            row[f"labels:{task}"] = label
            if task == "tags":
                row["word_positions"] = list(range(length))
        rows.append(row)
    return collate(rows, readers, model.heads)


def alone(model, task):
    """The same model with this task's adapter as PEFT itself calls it, for all rows."""
    twin = copy.deepcopy(model)
    encoder = twin.sharing.encoder  # its heads pool with it
    for module in encoder.modules():
        if type(module).__name__ == "TaskLinear":
            module.__class__ = type(module).__mro__[1]
    del encoder.owners
    twin.sharing.owners = None
    shared = ["default"] if "default" in encoder.peft_config else []
    encoder.base_model.set_adapter([*shared, model.sharing.owners.adapter_of[task]])
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return twin


READERS = [["mood"], ["tags"], ["length"], ["mood"], ["tags"], ["mood"], ["length"]]
SHARED_ROWS = [["mood", "length"], ["tags"], ["length"], ["mood", "length"], ["tags"]]


def sum_of(logits):
    return sum((part.float() * torch.linspace(-1, 1, part.numel()).view(part.shape)).sum() for part in logits.values())


@pytest.mark.parametrize("readers", [READERS, SHARED_ROWS], ids=["own rows", "shared rows"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_every_task_sees_its_own_adapter_and_no_other(family, readers):
    model = made(family)
    batch = batch_of(model, readers)
    logits = model(**batch)["logits"]
    sum_of(logits).backward()
    for task, found in logits.items():
        twin = alone(model, task)
        only = {**batch, "targets": {task: batch["targets"][task]}}
        wanted = twin(**only)["logits"]
        torch.testing.assert_close(found, wanted[task], rtol=1e-5, atol=1e-5)
        sum_of(wanted).backward()
        theirs = dict(twin.named_parameters())
        own = [name for name in theirs if f".{task}.weight" in name and "lora_" in name]
        assert own
        for name in own:
            grad, other = model.get_parameter(name).grad, theirs[name].grad
            assert (grad is None) == (other is None), name
            if grad is not None:
                assert (grad - other).abs().max() <= 3e-4 * max(1.0, float(other.abs().max())), name


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2", "llama"])
def test_the_shared_adapters_gradient_is_the_sum_over_tasks(family):
    model = made(family)
    batch = batch_of(model, READERS)
    sum_of(model(**batch)["logits"]).backward()
    total = {}
    for task in model.tasks:
        twin = alone(model, task)
        sum_of(twin(**{**batch, "targets": {task: batch["targets"][task]}})["logits"]).backward()
        for name, parameter in twin.named_parameters():
            if ".default." in name and parameter.grad is not None:
                total[name] = total.get(name, 0) + parameter.grad
    assert total
    for name, value in total.items():
        assert (model.get_parameter(name).grad - value).abs().max() <= 1e-4 * max(1.0, float(value.abs().max())), name


@pytest.mark.parametrize(
    "tuning",
    [
        {"task_lora": ALL},
        {"task_lora": {**ALL, "use_rslora": True, "lora_alpha": 5}},
        {"lora": {"r": 2, "target_modules": ["query"]}, "task_lora": {"r": 3, "target_modules": ["dense"]}},
        {"task_lora": {"r": 3, "target_modules": ["value"], "rank_pattern": {"layer.0.attention.self.value": 5}}},
    ],
    ids=["alone", "rslora", "other layers", "ranks"],
)
def test_settings(tuning):
    model = made(**tuning)
    batch = batch_of(model, READERS)
    logits = model(**batch)["logits"]
    for task, found in logits.items():
        twin = alone(model, task)
        wanted = twin(**{**batch, "targets": {task: batch["targets"][task]}})["logits"][task]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        assert (found - alone(model, "tags" if task != "tags" else "mood")(**batch)["logits"][task]).abs().max() > 1e-3


@pytest.mark.skipif(building.compiled() is None, reason="no compiled kernels on this machine")
@pytest.mark.parametrize("readers", [READERS, SHARED_ROWS], ids=["own rows", "shared rows"])
def test_in_bfloat16_it_is_as_near_to_float32_as_plain_torch(readers):
    far = torch.zeros(2)
    for seed in range(4):  # the gradients of a tiny model are rough in bfloat16, whoever computes them
        model = made(seed=seed)
        batch = batch_of(model, readers)
        exact, ours = gradients(model, batch, False), gradients(model, batch, True)
        with building.switched_off():
            plain = gradients(model, batch, True)
        assert exact.keys() == ours.keys() == plain.keys()
        for number, found in enumerate((ours, plain)):
            far[number] += sum(float((found[n] - exact[n]).norm() / exact[n].norm()) for n in exact) / len(exact)
    assert far[0] < 1.3 * far[1]


def gradients(model, batch, narrow):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        logits = model(**batch)["logits"]
    sum_of(logits).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None and "lora_" in n}


def test_plain_torch_gives_the_same():
    model = made()
    batch = batch_of(model, SHARED_ROWS)
    fast = model(**batch)["logits"]
    with building.switched_off():
        slow = model(**batch)["logits"]
    for task in fast:
        torch.testing.assert_close(fast[task], slow[task], rtol=1e-5, atol=1e-5)


def test_recomputed_activations_use_the_same_adapters():
    model = made().train()
    batch = batch_of(model, READERS)
    grads = []
    for recomputed in (False, True):
        if recomputed:
            model.activation_checkpointing_enable()
        model.zero_grad()
        sum_of(model(**batch)["logits"]).backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, value in grads[0].items():
        torch.testing.assert_close(grads[1][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "llama", "gpt2"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_recomputed_activations_do_not_mind_another_pass_in_between(family):
    model = made(family).train()
    batch = batch_of(model, READERS)
    other = batch_of(model, READERS[1:] + READERS[:1])  # as many rows, of other tasks
    model.activation_checkpointing_enable()
    grads = []
    for between in (False, True):
        model.zero_grad()
        torch.manual_seed(0)  # heads of decoders drop out
        loss = sum_of(model(**batch)["logits"])
        if between:
            with torch.no_grad():
                model(**other)
        loss.backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(value, grads[1][name]) for name, value in grads[0].items())


def test_recomputing_is_refused_where_a_family_takes_one_call_for_each_adapter():
    model = made("deberta-v2").train()
    model.activation_checkpointing_enable()
    with pytest.raises(UnsupportedError, match="recomputing"):
        model(**batch_of(model, READERS))


def test_tasks_that_share_a_head_share_an_adapter():
    other = TASKS[0].with_(name="mood_too", head_of="mood")
    model = made(tasks=[*TASKS, other])
    assert model.sharing.owners.adapters == ["mood", "length", "tags"]
    answers = predict(model, "it was good")
    assert answers["mood"] == answers["mood_too"]
    assert model.sharing.copies(["mood", "mood_too"]) == 1
    assert model.sharing.copies(["mood", "length"]) == 2


def test_first_weights_hang_on_seed_and_task_only():
    def adapters(names, seed=0):
        tasks = [task for task in TASKS if task.name in names]
        encoder = add_lora(tiny_encoder(), None, per_task=ALL, adapter_of={t.name: t.name for t in tasks}, seed=seed)
        return {n: p for n, p in encoder.named_parameters() if ".mood." in n}

    one, same, other = adapters(["mood"]), adapters(["mood", "tags"]), adapters(["mood"], seed=1)
    assert one and all(torch.equal(value, same[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())


def test_all_linear_layers_are_adapted_by_both():
    encoder = tiny_encoder()
    layers = linear_layers(encoder)
    model = made()
    for name in layers:
        layer = base_of(model.sharing.encoder).get_submodule(name)
        assert set(layer.r) == {"default", "mood", "length", "tags"}, name
    assert all(p.requires_grad for n, p in model.named_parameters() if "lora_" in n)


def test_shared_parameters_are_those_of_more_than_one_task():
    model = made()
    shared = {id(p) for p in model.sharing.shared_parameters()}
    for name, parameter in model.sharing.named_parameters():
        assert (id(parameter) in shared) == (".default." in name), name


# ---------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def saved(tmp_path):
    from nlp_mtl.bases import find_base

    encoder, tokenizer = tiny_encoder(), tiny_tokenizer()
    encoder.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = MultiTaskModel.from_base(
        tmp_path / "base", TASKS, lora={"r": 2, "target_modules": "all-linear"}, task_lora={**ALL, "use_rslora": True}
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.eval().save_pretrained(tmp_path / "run")
    assert find_base(tmp_path / "base")
    return model, tmp_path


def test_what_is_saved_is_loaded_to_the_bit(saved):
    model, folder = saved
    again = MultiTaskModel.from_pretrained(folder / "run", base=folder / "base")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not any(p.requires_grad for n, p in again.named_parameters() if "lora_" in n)
    again = MultiTaskModel.from_pretrained(folder / "run", base=folder / "base", trainable=True)
    assert all(p.requires_grad for n, p in again.named_parameters() if "lora_" in n)
    assert predict(model, "it was good") == predict(again, "it was good")


def test_no_root_adapter_that_would_load_and_be_wrong(saved):
    _, folder = saved
    assert not (folder / "run" / "adapter_config.json").exists()
    assert not (folder / "run" / "config.json").exists()


@pytest.mark.parametrize("task", ["mood", "length", "tags"])
def test_each_task_is_an_ordinary_peft_adapter(saved, task):
    model, folder = saved
    batch = batch_of(model, [[task]] * 4)
    loaded = PeftModel.from_pretrained(tiny_encoder(), folder / "run" / task).eval()
    for number, ids in enumerate(batch["input_ids"].split(batch["lengths"].tolist())):
        states = loaded(ids[None]).last_hidden_state[0]
        one = batch_of(model, [[task]] * 4)
        twin = alone(model, task).sharing.encoder(ids[None]).last_hidden_state[0]
        torch.testing.assert_close(states, twin, rtol=1e-4, atol=1e-4)
        assert one["lengths"][number] == len(ids)


def test_folding_is_what_peft_makes_of_it(saved):
    model, _ = saved
    config, tensors = folded(model.sharing.encoder, "mood")
    twin = alone(model, "mood").sharing.encoder
    twin.add_weighted_adapter(["default", "mood"], [1.0, 1.0], "both", combination_type="cat")
    layer = base_of(twin).get_submodule("encoder.layer.0.output.dense")
    key = "base_model.model.encoder.layer.0.output.dense"
    theirs = layer.get_delta_weight("both")
    ours = tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]
    assert config.r == config.lora_alpha == 5
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_run_of_another_kind_is_refused(saved):
    model, folder = saved
    from nlp_mtl import weights

    other = MultiTaskModel.from_base(folder / "base", TASKS, lora={"r": 2, "target_modules": "all-linear"})
    with pytest.raises(RunFolderError, match="LoRA for each task"):
        weights.load_weights(folder / "run", other.sharing, dict(other.modules_.items()))
    other.save_pretrained(folder / "other")
    with pytest.raises(RunFolderError, match="LoRA for each task"):
        weights.load_weights(folder / "other", model.sharing, dict(model.modules_.items()))
    fewer = MultiTaskModel.from_base(folder / "base", TASKS, task_lora=ALL)
    with pytest.raises(RunFolderError, match="a sharing of another model"):
        weights.load_weights(folder / "run", fewer.sharing, dict(fewer.modules_.items()))


# --------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        ({"task_lora": {**ALL, "use_dora": True}}, "task_lora.use_dora.*normalises the whole weight"),
        ({"lora": {**ALL, "use_dora": True}, "task_lora": ALL}, "`lora.use_dora`"),
        ({"task_lora": {**ALL, "bias": "all"}}, "task_lora.bias"),
        ({"task_lora": {**ALL, "modules_to_save": ["pooler"]}}, "task_lora.modules_to_save"),
        ({"task_lora": {**ALL, "init_lora_weights": "pissa"}}, "init_lora_weights.*changes the weights"),
        ({"task_lora": {**ALL, "rr": 1}}, "no field 'rr'"),
        ({"task_lora": {"r": 2, "target_modules": ["nowhere"]}}, "task_lora.target_modules"),
        ({"task_lora": 8}, "task_lora: expected the fields"),
        ({"task_lora": LoraConfig(r=2, target_modules="all-linear", lora_bias=True)}, "task_lora.lora_bias"),
    ],
)
def test_what_does_not_go_is_refused_with_the_reason(tuning, said):
    with pytest.raises(ConfigError, match=said):
        made(**tuning)


def test_all_mistakes_are_said_at_once():
    with pytest.raises(ConfigError) as caught:
        made(lora={"r": 0}, task_lora={**ALL, "use_dora": True, "bias": "all"})
    assert len(caught.value.mistakes) == 3
    with pytest.raises(ConfigError) as caught:
        made(task_lora={**ALL, "rr": 1, "use_dora": True})
    assert len(caught.value.mistakes) == 2


def test_layers_that_are_not_linear_are_refused():
    with pytest.raises(UnsupportedError, match=r"linear layers only.*word_embeddings"):
        made(task_lora={"r": 2, "target_modules": ["word_embeddings", "query"]})


@pytest.mark.parametrize("name", ["default", "my_lora_task"])
def test_names_that_mean_something_to_peft_are_refused(name):
    with pytest.raises(ConfigError, match="rename the task"):
        made(tasks=[TASKS[0].with_(name=name)])


def test_rows_of_unknown_owners_are_never_guessed():
    owners = Owners({"a": "a", "b": "b"})
    owners.let(torch.tensor([0, 1, 1]))
    assert owners.runs(3).owners == (0, 1)
    with pytest.raises(RuntimeError, match="5 rows"):
        owners.runs(5)
    model = made()
    assert owners_of(model.sharing.encoder) is model.sharing.owners


def test_a_model_is_saved_twice_and_pickled(saved):
    model, folder = saved
    model.save_pretrained(folder / "run")
    again = pickle.loads(pickle.dumps(model))
    assert predict(again, "it was good") == predict(model, "it was good")
    assert model.strategies["lora"], "what card and push go by"


def test_threads_do_not_take_each_others_adapters():
    model = made()
    asked = {task: predict(model, "it was good", tasks=[task]) for task in ("mood", "length")}
    found = {task: [] for task in asked}

    def work(task):
        for _ in range(15):
            found[task] += predict(model, ["it was good"] * 3, tasks=[task])

    threads = [threading.Thread(target=work, args=(task,)) for task in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for task, answers in found.items():
        assert len(answers) == 45
        assert all(answer == asked[task] for answer in answers), task
