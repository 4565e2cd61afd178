"""The task files that come with the package: they parse, are named well, and say what the data says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from nlp_mtl import registry
from nlp_mtl.errors import NotFoundError
from nlp_mtl.sources import load_rows
from nlp_mtl.taskfile import Task
from nlp_mtl.tasks import TaskRegistry, builtin_folder, load_tasks

TASKS = TaskRegistry([builtin_folder()])
ALL = list(TASKS.tasks.values())

SUITES = {
    "glue": {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli_mm", "qnli", "rte", "wnli", "ax"},
    "advglue": {"adv_sst2", "adv_qqp", "adv_mnli", "adv_mnli_mismatched", "adv_qnli", "adv_rte"},
    "anli": {"anli_r1", "anli_r2", "anli_r3"},
    "xnli": {f"xnli_{language}" for language in ("en", "de", "fr", "es", "zh")},
    "paws_x": {f"paws_x_{language}" for language in ("en", "de", "fr", "es", "zh")},
    "sentiment": {
        "sst5",
        "imdb",
        "yelp_polarity",
        "amazon_polarity",
        "financial_phrasebank",
        "poem_sentiment",
        "tweet_sentiment",
        "tweet_emotion",
        "tweet_irony",
    },
    "tweet_eval": {
        *(f"tweet_{part}" for part in ("emoji", "emotion", "hate", "irony", "offensive", "sentiment")),
        *(f"tweet_stance_{target}" for target in ("abortion", "atheism", "climate", "feminist", "hillary")),
    },
    "topic": {"ag_news", "dbpedia_14", "yahoo_answers_topics", "newsgroups_20", "bbc_news", "subj"},
    "multi_label": {"go_emotions", "unfair_tos", "civil_comments"},
    "summarization": {"cnn_dailymail", "xsum"},
    "translation": {"wmt16_de_en", "wmt16_ro_en", "multi30k_en_de"},
    "ner": {
        "conll2003",
        "wnut_17",
        "ontonotes5",
        "bc5cdr",
        "jnlpba",
        "fin",
        "ncbi_disease",
        "bc2gm",
        "few_nerd_coarse",
        "few_nerd_fine",
        "multinerd_en",
    },
    "clinc": {"clinc150", "clinc150_small", "clinc150_imbalanced"},
    "atis": {"atis_intent", "atis_slots"},
    "chunking": {"conll2003_chunks", "conll2000_chunks"},
    "superglue": {"boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc", "axb", "axg"},
    "quickstart": {"quick_stsb", "quick_movies", "quick_tweets", "quick_trec", "quick_sms", "quick_ner"},
}

# Rows of train, validation and test; where a share is held out, duplicates are dropped.
MIRRORED = {
    "cola": (8551, 1043, 1063),
    "sst2": (67349, 872, 1821),
    "mrpc": (3668, 408),
    "stsb": (5749, 1500, 1379),
    "rte": (2490, 277),
    "wnli": (635, 71),
    "cb": (250, 56),
    "copa": (400, 100),
    "mmlu": (285, 1529, 14042),
    "wic": (5428, 638),
    "conll2003": (14041, 3250, 3453),
    "wnut_17": (3394, 1009, 1287),
    "ud_english": (12544, 2001, 2077),
    "sst5": (8544, 1101, 2210),
    "tweet_emotion": (3257, 374, 1421),
    "tweet_irony": (2862, 955, 784),
    "multi_domain_books": (1700, 300),
    "multi_domain_dvd": (1700, 300),
    "multi30k_en_de": (29000, 1014, 1000),
    "trec": (4821, 560, 500),
    "trec_fine": (4821, 560, 500),
    "banking77": (8973, 1030, 3080),
    "snips_intent": (13084, 700, 700),
    "snips_slots": (13084, 700, 700),
}
PACKAGED = {
    "quick_stsb": (5749, 1500, 1379),
    "quick_movies": (8022, 1011, 1008),  # of 10605, 562 are neutral and 2 come twice
    "quick_tweets": (3371, 407, 422),
    "quick_trec": (4303, 560, 518),  # of 5452, 71 come twice
    "quick_sms": (4108, 524, 528),  # of 5574, 410 come twice
    "quick_ner": (1603, 358, 334),  # of 2394, 99 come twice
}


def data_root() -> Path | None:
    named = os.environ.get("NLP_MTL_DATA_ROOT")
    for folder in [Path(named)] if named else [builtin_folder().parent.parent / "shared" / "data"]:
        if folder.is_dir():
            return folder
    return None


needs_mirror = pytest.mark.skipif(data_root() is None, reason="real data: no NLP_MTL_DATA_ROOT, no ../shared/data")


def each(tasks):
    return pytest.mark.parametrize("task", tasks, ids=lambda task: task.name)


def test_every_file_is_a_task_or_a_fragment():
    files = [file for file in builtin_folder().rglob("*.yaml") if file.name != "packages.yaml"]
    assert {file for file in files if not file.name.startswith("_")} == {task.file for task in ALL}


@each(ALL)
def test_the_file_has_the_name_of_its_task(task):
    assert task.file.stem == task.name
    assert re.fullmatch(r"[a-z][a-z0-9_]*", task.name)


@each(ALL)
def test_it_says_what_it_is(task):
    assert task.description
    assert "\n" not in task.description
    assert task.tags
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", tag) for tag in task.tags)
    planned = registry.not_built(task.head_name)  # its metrics come with it
    assert planned or task.metrics, "the first metric decides the best checkpoint: name it"


@each([task for task in ALL if {"quickstart", "sentiment", "topic", "multi_label"} & set(task.tags)])
def test_it_says_where_it_comes_from_and_how_that_is_known(task):
    assert task.license
    assert re.search(r"\b(19|20)\d\d, \w", task.citation), "authors, year, title"
    assert task.verified != "no"


@each(ALL)
def test_lines_fit_a_screen_and_name_no_host(task):
    text = task.file.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) <= 32
    assert not re.search(r"https?://|(^|[\s\"'])/\w", text), "no addresses and no paths of one machine"


@each(ALL)
def test_examples_have_the_shape_of_the_prepared_rows(task):
    assert len(task.examples) >= 2
    for row in task.examples:
        read = (*task.inputs, *_choices(task), *task.metric_columns.values())
        for column in (*read, *([task.target] if task.target else [])):
            assert column in row
        for column in task.inputs:
            words = row[column] if isinstance(row[column], list) else [row[column]]
            assert words
            assert all(isinstance(word, str) and word.strip() for word in words)


@each([task for task in ALL if task.target])
def test_examples_have_valid_targets(task):
    for row in task.examples:
        value = row[task.target]
        if task.head_name == "regression":
            assert isinstance(value, float)
        elif task.head_name == "question_answering":
            for text, start in zip(value["text"], value["answer_start"], strict=True):
                assert row["context"][start : start + len(text)] == text
        elif task.head_name == "token_classification":
            assert len(value) == len(row[task.inputs[0]])
            assert all(_is_label(task, tag) for tag in value)
        elif task.head_name == "multi_label":
            assert len(set(value)) == len(value)
            assert all(_is_label(task, label) for label in value)
        elif task.head_name == "seq2seq" and task.labels is None:
            assert isinstance(value, str) and value.strip()
        else:
            assert _is_label(task, value)


@each([task for task in ALL if task.labels])
def test_examples_show_more_than_one_label(task):
    shown = [row[task.target] for row in task.examples]
    if task.head_name in ("token_classification", "multi_label"):
        shown = [tag for tags in shown for tag in tags]
    assert len(set(shown)) > 1


@each(ALL)
def test_preparations_and_metrics_exist(task):
    for spec in task.prepare:
        name, arguments = registry.parse_spec(spec, "preparation")
        assert not registry.preparations.check_arguments(name, arguments, given=1)
    assert all(metric in registry.metrics for metric in task.metrics or [])


def test_iob2_label_lists_begin_each_type_with_b():
    for task in ALL:
        if isinstance(task.head, dict) and task.head.get("scheme") == "iob2" and task.labels:
            assert "O" in task.labels
            inside = {label[2:] for label in task.labels if label.startswith("I-")}
            assert inside <= {label[2:] for label in task.labels if label.startswith("B-")}


MASSIVE = ["en", "de", "fr", "es"]
UD = ["german", "french", "spanish", "italian", "dutch", "portuguese", "swedish", "russian"]
WIKIANN = ["en", "de", "fr", "es", "it", "ru", "zh", "ar"]
MULTINERD = ["en", "de", "fr", "es"]
SPANS = [
    *["ontonotes5", "bc5cdr", "jnlpba", "fin", "mit_restaurant", "ncbi_disease", "bc2gm", "german_ler"],
    *["few_nerd_coarse", "few_nerd_fine", "conll2002_es", "conll2002_nl"],
    *["conll2003_chunks", "conll2000_chunks", "atis_slots"],
]

# As the owners of the benchmarks score them; what stands first decides the best checkpoint.
OFFICIAL = {
    "cola": ["matthews_correlation"],
    "cola_text": ["matthews_correlation"],
    "sst2_text": ["accuracy"],
    "mrpc_text": ["f1", "accuracy"],
    "rte_text": ["accuracy"],
    "stsb_text": ["pearson", "spearman"],
    "multi30k_en_de": ["bleu"],
    "wmt16_de_en": ["bleu"],
    "wmt16_ro_en": ["bleu"],
    "cnn_dailymail": ["rouge1", "rouge2", "rougeL"],
    "xsum": ["rouge1", "rouge2", "rougeL"],
    "sst2": ["accuracy"],
    "mrpc": ["f1", "accuracy"],
    "qqp": ["f1", "accuracy"],
    "stsb": ["pearson", "spearman"],
    "mnli": ["accuracy"],
    "mnli_mm": ["accuracy"],
    "qnli": ["accuracy"],
    "rte": ["accuracy"],
    "wnli": ["accuracy"],
    "ax": ["matthews_correlation"],
    "adv_qqp": ["f1", "accuracy"],
    **{f"adv_{name}": ["accuracy"] for name in ("sst2", "mnli", "mnli_mismatched", "qnli", "rte")},
    **{name: ["accuracy"] for name in ("snli", "scitail", "anli_r1", "anli_r2", "anli_r3", "paws")},
    **{
        f"{name}_{language}": ["accuracy"] for name in ("xnli", "paws_x") for language in ("en", "de", "fr", "es", "zh")
    },
    **{name: ["accuracy"] for name in ("arc_easy", "arc_challenge", "hellaswag", "mmlu", "commonsense_qa")},
    **{name: ["accuracy"] for name in ("openbookqa", "winogrande", "piqa", "social_iqa")},
    "boolq": ["accuracy"],
    "cb": ["f1_macro", "accuracy"],
    "copa": ["accuracy"],
    "multirc": ["f1", "group_exact_match"],
    "record": ["best_f1_answer", "best_exact_match"],
    "wic": ["accuracy"],
    "wsc": ["accuracy"],
    "axb": ["matthews_correlation"],
    "axg": ["accuracy", "gender_parity"],
    "squad": ["exact_match", "f1_answer"],
    "squad_v2": ["exact_match", "f1_answer"],
    "conll2003": ["span_f1"],
    "wnut_17": ["span_f1"],
    "snips_slots": ["span_f1"],
    "snips_intent": ["accuracy"],
    "ud_english": ["accuracy"],
    "tweet_emotion": ["f1_macro"],
    "tweet_irony": ["f1"],
    "tweet_emoji": ["f1_macro"],
    "tweet_hate": ["f1_macro"],
    "tweet_offensive": ["f1_macro"],
    "tweet_sentiment": ["recall_macro"],
    **{name: ["f1_favor_against"] for name in SUITES["tweet_eval"] if "stance" in name},
    "sst5": ["accuracy"],
    "imdb": ["accuracy"],
    "rotten_tomatoes": ["accuracy"],
    "yelp_polarity": ["accuracy"],
    "yelp_review_full": ["accuracy"],
    "amazon_polarity": ["accuracy"],
    "financial_phrasebank": ["accuracy", "f1_macro"],
    "poem_sentiment": ["accuracy"],
    "multi_domain_books": ["accuracy"],
    "multi_domain_dvd": ["accuracy"],
    **{name: ["accuracy"] for name in SUITES["topic"]},
    "ledgar": ["f1_micro", "f1_macro"],
    "unfair_tos": ["f1_micro", "f1_macro"],
    "go_emotions": ["f1_macro"],
    "trec": ["accuracy"],
    "trec_fine": ["accuracy"],
    "banking77": ["accuracy"],
    "hwu64": ["accuracy"],
    "atis_intent": ["accuracy"],
    "conll2003_pos": ["accuracy"],
    **{name: ["accuracy"] for name in ["clinc150", "clinc150_small", "clinc150_imbalanced"]},
    **{f"massive_{language}_intent": ["accuracy"] for language in MASSIVE},
    **{f"massive_{language}_slots": ["span_f1"] for language in MASSIVE},
    **{f"ud_{language}": ["accuracy"] for language in UD},
    **{f"wikiann_{language}": ["span_f1"] for language in WIKIANN},
    **{f"multinerd_{language}": ["span_f1"] for language in MULTINERD},
    **{name: ["span_f1"] for name in SPANS},
}


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_tasks_are_scored_by_their_official_metrics(name):
    said = TASKS.tasks[name].metrics
    assert set(OFFICIAL[name]) <= set(said), "all of them"
    assert said[0] in OFFICIAL[name]
    if len(OFFICIAL[name]) == 1:
        assert said[0] == OFFICIAL[name][0]


# These have no official metric, or one that needs more than labels (a bias by identity group).
UNOFFICIAL = {"hate_speech_offensive", "civil_toxicity", "civil_comments"}


def test_every_task_of_a_benchmark_has_its_official_metrics_here():
    own = {name for name, task in TASKS.tasks.items() if {"quickstart", "lm", "adaptation"} & set(task.tags)}
    planned = {name for name, task in TASKS.tasks.items() if registry.not_built(task.head_name)}
    assert set(OFFICIAL) == set(TASKS.tasks) - own - planned - UNOFFICIAL


def test_suites():
    tags = TASKS.tags()
    for suite, members in SUITES.items():
        assert set(tags[suite]) == members
    assert not set(tags) & set(TASKS.tasks), "a tag with the name of a task could never be reached"
    assert {task.name for task in load_tasks("glue")} == SUITES["glue"]


def test_quickstart_needs_no_hub():
    quick = [TASKS.tasks[name] for name in SUITES["quickstart"]]
    assert all(task.dataset.package and task.tags == ["quickstart"] for task in quick)


def test_no_suite_holds_tasks_that_share_rows_across_splits():
    related = [
        "sst2 sst5 quick_movies rotten_tomatoes",
        "adv_sst2 sst5 quick_movies rotten_tomatoes",
        "wnut_17 quick_ner",
        "stsb quick_stsb",
        "trec quick_trec",
        "yelp_polarity yelp_review_full",
        "amazon_polarity multi_domain_books",
        "amazon_polarity multi_domain_dvd",
        "hwu64 massive_en_intent",
        "hwu64 massive_en_slots",
    ]
    for suite, members in TASKS.tags().items():
        for names in related:
            assert len(set(names.split()) & set(members)) < 2, suite


@pytest.mark.realdata
@needs_mirror
@pytest.mark.parametrize("name", MIRRORED)
def test_rows_and_labels_of_the_mirror(name):
    task = TASKS.tasks[name]
    found = load_rows(task, data_root=data_root())
    assert tuple(len(found[split]) for split in ("train", "validation", "test") if split in found) == MIRRORED[name]
    for rows in found.values():
        feature = rows.features[task.target]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names is not None and task.labels is not None:
            assert list(names) == task.labels
    if name == "sst5":  # numbers, and the names in a column of their own
        pairs = set(zip(found["train"]["label"], found["train"]["label_text"], strict=True))
        assert [text for _, text in sorted(pairs)] == task.labels


@pytest.mark.packages
@pytest.mark.parametrize("name", PACKAGED)
def test_rows_of_the_packages(name):
    task = TASKS.tasks[name]
    try:
        found = load_rows(task)
    except NotFoundError as error:
        pytest.skip(f"quickstart packages: {str(error).splitlines()[0]}")
    assert tuple(len(found[split]) for split in ("train", "validation", "test")) == PACKAGED[name]
    for rows in found.values():
        for column in task.inputs:
            assert all(rows[column])
        if task.labels:
            values = rows[task.target]
            tags = [tag for tags in values for tag in tags] if task.head_name == "token_classification" else values
            assert set(tags) <= set(task.labels)


def _choices(task: Task) -> list[str]:
    choices = task.head.get("choices", []) if isinstance(task.head, dict) else []
    return [choices] if isinstance(choices, str) else list(choices)


def _is_label(task: Task, value: object) -> bool:
    if isinstance(value, int):
        return 0 <= value < len(task.labels or range(1000))
    return isinstance(value, str) if task.labels is None else value in task.labels
