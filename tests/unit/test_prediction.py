"""What every task says about an input: in words, at the right place, from one encoder pass."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nlp_mtl import prediction
from nlp_mtl.batches import collate
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.heads.labels import Where
from nlp_mtl.model import MultiTaskModel
from nlp_mtl.taskfile import Task
from nlp_mtl.testing import WORDS, tiny_model

torch.set_num_threads(1)  # tiny models: threads would only wait for one another

predict = partial(prediction.predict, dtype="float32")  # so that answers can be compared to the last digits
predict_stream = partial(prediction.predict_stream, dtype="float32")

DATA = {"path": "nowhere/at_all"}
LISTED = {"dataset": DATA, "head": "sequence_classification"}
TASKS = [
    Task(name="mood", inputs=["text"], target="l", labels=["good", "bad", "so so"], **LISTED),
    Task(name="topic", inputs=["sentence"], target="l", labels=["city", "animal"], **LISTED),
    Task(name="follows", inputs=["premise", "claim"], target="l", labels=["yes", "no"], **LISTED),
    Task(name="stars", head="regression", dataset=DATA, inputs=["text"], target="s"),
    Task(name="several", head="multi_label", dataset=DATA, inputs=["text"], target="m", labels=["p", "q", "r"]),
    Task(
        name="names",
        head="token_classification",
        dataset=DATA,
        inputs=["words"],
        target="t",
        labels=["O", "B-X", "I-X"],
    ),
    Task(
        name="pos",
        head={"name": "token_classification", "scheme": "none"},
        dataset=DATA,
        inputs=["words"],
        target="t",
        labels=["NOUN", "VERB"],
    ),
    Task(name="answer", head="question_answering", dataset=DATA, inputs=["question", "context"], target="a"),
    Task(
        name="choice",
        head={"name": "multiple_choice", "choices": ["one", "two"]},
        dataset=DATA,
        inputs=["text"],
        target="r",
    ),
    Task(
        name="pick", head={"name": "multiple_choice", "choices": "options"}, dataset=DATA, inputs=["text"], target="r"
    ),
    Task(name="hidden", head="masked_lm", dataset=DATA, inputs=["text"]),
]
TEXT_TASKS = ["mood", "topic", "stars", "several", "names", "pos"]


@pytest.fixture(scope="module")
def model():
    """A model of all heads with weights that tell inputs apart."""
    made = tiny_model(TASKS).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made


@pytest.fixture
def encoder_calls(model):
    """The number of tokens of sequences in each call of the encoder."""
    calls = []
    hook = model.sharing.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs["packed_layout"].tokens), with_kwargs=True
    )
    yield calls
    hook.remove()


def plain(answers):
    """Through JSON, so that nothing but plain values is in it."""
    return json.loads(json.dumps(answers, allow_nan=False))


# --------------------------------------------------------------------------------------------------------------- inputs


def test_a_text_is_read_by_the_tasks_with_one_input(model):
    answers = predict(model, "the cat is good")
    assert list(answers) == model.tasks
    assert [task for task, answer in answers.items() if "missing" not in answer] == TEXT_TASKS
    assert answers["follows"] == {"missing": ["claim"]}
    assert answers["answer"] == {"missing": ["context"]}
    assert answers["choice"] == {"missing": ["one", "two"]}
    assert answers["pick"] == {"missing": ["options"]}
    assert answers["hidden"] == {"missing": ["[MASK] in the text"]}
    plain(answers)


def test_a_pair_is_read_by_the_tasks_with_two_texts(model):
    answers = predict(model, ("the cat is good", "a dog is bad"))
    assert [task for task, answer in answers.items() if "missing" not in answer] == ["follows", "answer"]
    assert answers["mood"] == {"missing": ["1 input(s), not a pair"]}
    assert "missing" in answers["pick"], "the second text is no list of choices"


def test_a_mapping_is_read_by_every_task_whose_columns_are_there(model):
    row = {"text": "rain", "premise": "cat", "claim": "dog", "one": "a", "two": "b"}
    answers = predict(model, row)
    assert [task for task, answer in answers.items() if "missing" not in answer] == [
        "mood",
        "follows",
        "stars",
        "several",
        "choice",
    ]
    assert answers["topic"] == {"missing": ["sentence"]}
    assert answers["answer"] == {"missing": ["question", "context"]}
    assert answers["pick"] == {"missing": ["options"]}
    with_more = predict(model, {**row, "unknown": 7})
    assert with_more == answers, "columns that no task reads are passed over"


def test_the_three_forms_agree(model):
    assert predict(model, "rain in the city")["mood"] == predict(model, {"text": "rain in the city"})["mood"]
    assert predict(model, ("cat", "dog"))["follows"] == predict(model, {"premise": "cat", "claim": "dog"})["follows"]


def test_a_list_gives_a_list_in_the_same_order(model):
    inputs = ["cat", ("dog", "rain"), {"sentence": "city"}, "cat"]
    answers = predict(model, inputs)
    assert len(answers) == 4
    for value, answer in zip(inputs, answers, strict=True):
        assert_close(answer, predict(model, value))
    assert predict(model, []) == []


def assert_close(found, expected):
    """Equal, numbers to 1e-4."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-4)
    else:
        assert found == expected


@pytest.mark.parametrize("value", [7, None, ("a", "b", "c"), ("a", 1), 3.5])
def test_an_input_of_another_kind_is_refused_with_its_number(model, value):
    with pytest.raises(DataError, match="input 1: a text, a pair of texts or a mapping"):
        predict(model, ["cat", value])


def test_an_input_without_text_is_refused_with_its_number(model):
    with pytest.raises(DataError, match=r"(?s)predict: task 'mood': 1 input\(s\).*  input 1: 'text' ") as caught:
        predict(model, ["cat", " "], tasks=["mood"])
    assert not any(word in str(caught.value) for word in ("split", "prepare", "row"))
    with pytest.raises(DataError, match=r"(?s)task 'mood'.*input 2.*'text' is not text, found 'None'"):
        predict(model, [{"sentence": "this one is not for the task"}, {"text": "fine"}, {"text": None}], tasks=["mood"])


def test_only_the_wanted_tasks_answer_in_the_order_asked_for(model):
    assert list(predict(model, "cat", tasks=["stars", "mood"])) == ["stars", "mood"]
    with pytest.raises(ConfigError, match="'moood' is not a task of this model; did you mean 'mood'"):
        predict(model, "cat", tasks=["moood"])


def test_a_mode_is_left_as_it_was(model):
    model.train()
    try:
        predict(model, "cat")
        assert model.training
        with pytest.raises(DataError):
            predict(model, "")
        assert model.training
    finally:
        model.eval()


# -------------------------------------------------------------------------------------------------------------- answers


def logits_of(model, task, columns):
    """Logits of one row, taken the long way."""
    head = model.heads[task]
    rows = {name: [value] for name, value in columns.items()}
    tokens = head.tokenize(rows, model.tokenizer, model.max_length, Where(task, "x"))
    row = {key: np.asarray(values[0]) if isinstance(values[0], list) else values[0] for key, values in tokens.items()}
    with torch.no_grad():
        return model(**collate([row], [[task]], model.heads))["logits"][task]


def test_classes_are_named(model):
    said = predict(model, "the cat is good")["mood"]
    scores = logits_of(model, "mood", {"text": "the cat is good"}).softmax(-1)[0]
    assert said["label"] == ["good", "bad", "so so"][int(scores.argmax())]
    assert said["score"] == pytest.approx(float(scores.max()), abs=1e-5)
    assert said["scores"] == pytest.approx(dict(zip(["good", "bad", "so so"], scores.tolist(), strict=True)), abs=1e-5)


def test_numbers_and_several_labels(model):
    answers = predict(model, "the cat is good")
    assert answers["stars"] == {
        "value": pytest.approx(float(logits_of(model, "stars", {"text": "the cat is good"})[0]), abs=1e-5)
    }
    chances = logits_of(model, "several", {"text": "the cat is good"}).sigmoid()[0].tolist()
    assert answers["several"]["scores"] == pytest.approx(dict(zip("pqr", chances, strict=True)), abs=1e-5)
    assert answers["several"]["labels"] == [name for name, chance in zip("pqr", chances, strict=True) if chance >= 0.5]


def test_a_choice_is_named_by_place_and_text(model):
    said = predict(model, {"text": "rain", "one": "a cat", "two": "the house"})["choice"]
    scores = logits_of(model, "choice", {"text": "rain", "one": "a cat", "two": "the house"}).softmax(-1)[0]
    assert said["choice"] == int(scores.argmax())
    assert said["text"] == ["a cat", "the house"][said["choice"]]
    assert said["scores"] == pytest.approx(scores.tolist(), abs=1e-5)
    three, two = predict(
        model, [{"text": "rain", "options": ["a", "b", "c"]}, {"text": "sun", "options": ["no", "yes"]}], tasks=["pick"]
    )
    assert len(three["pick"]["scores"]) == 3
    assert len(two["pick"]["scores"]) == 2


ODD = ["Zoë", "東京", "naïve", "it's", "U.S.", "🐱", "x-y", "…", "Ø", "cat", "(dog)", "\u00a0old", "e\u0301t"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*ODD, *WORDS]), min_size=1, max_size=12), st.sampled_from([" ", "  ", ", ", "\n"]))
def test_offsets_slice_back_to_the_text(model, words, between):
    text = between.join(words)
    answers = plain(predict(model, text, tasks=["names", "pos"]))
    last = 0
    for entity in answers["names"]["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert entity["text"].strip() == entity["text"] != ""
        assert entity["start"] >= last
        assert entity["type"] == "X"
        assert 0 < entity["score"] <= 1
        last = entity["end"]
    tagged = answers["pos"]["tags"]
    assert "".join(item["word"] for item in tagged) == "".join(text.split())
    assert {item["tag"] for item in tagged} <= {"NOUN", "VERB"}


def test_entities_of_a_list_of_words_are_counted_in_words(model):
    words = [WORDS[i] for i in np.random.default_rng(3).integers(len(WORDS), size=40)]
    entities = predict(model, {"words": words}, tasks=["names"])["names"]["entities"]
    assert entities, "a model with random weights marks some of forty words"
    for entity in entities:
        assert entity["text"] == " ".join(words[entity["start"] : entity["end"]])


def test_a_word_list_and_a_text_with_the_same_tokens_keep_their_own_words(model):
    """["new cat"] is one word and "new cat" is two, though both are the same two tokens."""
    words = [WORDS[i] for i in np.random.default_rng(7).integers(len(WORDS), size=30)]
    inputs = [{"words": " ".join(words)}, {"words": [" ".join(words[:2]), *words[2:]]}, {"words": words}]
    together = predict(model, inputs, tasks=["names", "pos"])
    assert [len(answer["pos"]["tags"]) for answer in together] == [30, 29, 30]
    for value, answer in zip(inputs, together, strict=True):
        assert_close(answer, predict(model, value, tasks=["names", "pos"]))
        assert answer["names"]["entities"]


def test_an_answer_is_the_best_over_all_windows(model):
    context = " ".join(WORDS[i] for i in np.random.default_rng(5).integers(len(WORDS), size=300))
    head = model.heads["answer"]
    said = plain(predict(model, ("the cat", context))["answer"])
    assert context[said["start"] : said["end"]] == said["answer"] != ""
    tokens = head.tokenize(
        {"question": ["the cat"], "context": [context]}, model.tokenizer, model.max_length, Where("answer", "x")
    )
    assert len(tokens["input_ids"]) > 2, "the context is read in windows"
    best = (0, 0, -np.inf)
    for number in range(len(tokens["input_ids"])):
        row = {
            key: np.asarray(values[number])
            for key, values in tokens.items()
            if key in ("input_ids", "lengths", "token_type_ids")
        }
        with torch.no_grad():
            scores = model(**collate([row], [["answer"]], model.heads))["logits"]["answer"][0].numpy()
        offsets = np.asarray(tokens["offsets"][number]).reshape(-1, 2)
        for i in range(len(scores)):
            for j in range(i, min(len(scores), i + head.max_answer_length)):
                if offsets[i, 0] >= 0 and offsets[j, 0] >= 0 and scores[i, 0] + scores[j, 1] > best[2]:
                    best = (offsets[i, 0], offsets[j, 1], scores[i, 0] + scores[j, 1])
    assert (said["start"], said["end"]) == best[:2]
    assert said["score"] == pytest.approx(float(best[2]), abs=1e-3)


def test_a_masked_lm_fills_the_masks(model):
    answers = predict(model, ["the [MASK] is [MASK]", "cat [MASK]", "no mask"], tasks=["hidden"])
    assert [len(answer["hidden"].get("tokens", [])) for answer in answers] == [2, 1, 0]
    assert answers[2]["hidden"] == {"missing": ["[MASK] in the text"]}
    ids = torch.tensor([model.tokenizer("the [MASK] is [MASK]")["input_ids"]])
    with torch.no_grad():
        hidden = model.sharing.encoder(input_ids=ids).last_hidden_state[0, [2, 4]][None]
        best = model.module_of("hidden")(input_ids=ids, inputs_embeds=hidden).logits[0].argmax(-1).tolist()
    assert answers[0]["hidden"]["tokens"] == model.tokenizer.convert_ids_to_tokens(best)
    also = predict(model, "the [MASK] is [MASK]")
    assert also["hidden"] == answers[0]["hidden"]
    assert "label" in also["mood"], "other tasks read the same text beside it"


# ------------------------------------------------------------------------------------------------------------- one pass


def tokens_in(model, *texts):
    return sum(
        len(model.tokenizer(*text)["input_ids"]) if isinstance(text, tuple) else len(model.tokenizer(text)["input_ids"])
        for text in texts
    )


def test_all_tasks_of_an_input_take_one_encoder_call_and_read_the_same_tokens(model, encoder_calls):
    predict(model, "the cat is good")
    assert encoder_calls == [tokens_in(model, "the cat is good")], "six tasks read one text"


def test_all_inputs_take_one_encoder_call_and_equal_ones_are_encoded_once(model, encoder_calls):
    predict(model, ["the cat", "rain", "the cat", ("cat", "dog"), ("cat", "dog"), {"text": "rain"}])
    assert encoder_calls == [tokens_in(model, "the cat", "rain", ("cat", "dog"))]


def test_inputs_that_no_task_can_read_take_none(model, encoder_calls):
    assert predict(model, {"nothing": "x"}, tasks=["mood"]) == {"mood": {"missing": ["text"]}}
    assert encoder_calls == []


@pytest.mark.parametrize("window", [1, 2, 3, 100])
def test_a_stream_answers_in_order_and_reads_no_more_than_a_window_ahead(model, encoder_calls, window):
    texts = [f"{WORDS[i % len(WORDS)]} {WORDS[i % 7]}" for i in range(9)]
    taken = []

    def inputs():
        for text in texts:
            taken.append(text)
            yield text

    stream = predict_stream(model, inputs(), tasks=["mood"], window=window)
    first = next(stream)
    assert len(taken) == min(window, 9), "nothing beyond the window is read ahead"
    found = [first, *stream]
    assert len(encoder_calls) == -(-9 // window)
    for text, answer in zip(texts, found, strict=True):
        assert_close(answer, predict(model, text, tasks=["mood"]))


def test_a_mistake_deep_in_a_stream_has_its_absolute_number(model):
    with pytest.raises(DataError, match=r"input 5"):
        list(predict_stream(model, ["cat"] * 5 + [""], tasks=["mood"], window=2))


def test_company_does_not_change_an_answer(model):
    texts = ["cat", "the old house in the rain and the sun", "no", "yes yes yes"]
    for value, answer in zip(texts, predict(model, texts), strict=True):
        assert_close(answer, predict(model, value))


def test_long_texts_are_cut_at_the_models_length(model, encoder_calls):
    answer = predict(model, "cat " * 500)
    assert encoder_calls == [model.max_length]
    assert "label" in answer["mood"]


def test_a_run_folder_is_as_good_as_its_model(model, tmp_path):
    small = tiny_model(TASKS[:3]).eval()
    small.save_pretrained(tmp_path / "run")
    assert predict(tmp_path / "run", "the cat") == predict(small, "the cat")


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta-v2"])
def test_a_text_of_which_the_tokenizer_leaves_nothing_has_no_entities(family):
    tagger = tiny_model([TASKS[5]], family).eval()
    assert predict(tagger, "\x00") == {"names": {"entities": []}}
    assert [sorted(answer) for answer in predict(tagger, ["\x00", "rain", "\x00 \x00"])] == [["names"]] * 3


def test_of_a_folder_only_the_heads_of_the_asked_tasks_are_read(model, tmp_path):
    """With what they borrow; the answers are the whole model's."""
    borrowed = tiny_model([*TASKS[:2], TASKS[0].with_(name="mood_too", head_of="mood")]).eval()
    borrowed.save_pretrained(tmp_path)
    for task, modules in (("topic", {"topic"}), ("mood_too", {"mood"})):
        one = MultiTaskModel.from_pretrained(tmp_path, tasks=[task])
        assert one.tasks == [task]
        assert set(one.modules_) == modules
        assert predict(one, "the cat") == {task: predict(borrowed, "the cat")[task]}
        assert predict(tmp_path, "the cat", tasks=[task]) == predict(one, "the cat")
    with pytest.raises(ConfigError, match=r"2 mistakes(.|\n)*'moo' is not a task of this model; did you mean 'mood'"):
        predict(tmp_path, "the cat", tasks=["moo"], dtype="float31")
    file = tmp_path / "heads.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if name.startswith("topic.")}
    save_file(tensors, file)  # no tensor of the others is looked for
    (tmp_path / "complete.json").unlink(missing_ok=True)
    assert predict(tmp_path, "the cat", tasks=["topic"]) == {"topic": predict(borrowed, "the cat")["topic"]}
