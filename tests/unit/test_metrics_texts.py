"""Metrics of written texts are the numbers of the libraries that papers report."""

import doctest
import importlib
import statistics

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from nlp_mtl import registry
from nlp_mtl.errors import DataError, NotFoundError

quick = settings(max_examples=25, deadline=None)
WORDS = "ein Mann trägt ein rotes Boot , und die Kinder running boats Ein „ja“ ! 日本".split()
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
told = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
one_each = st.lists(st.tuples(texts, told.map(lambda text: [text])), min_size=1, max_size=6)
several = st.lists(st.tuples(texts, st.lists(told, min_size=1, max_size=3)), min_size=1, max_size=6)
NAMES = ["bleu", "chrf", "rouge1", "rouge2", "rougeL"]


def ours(name, rows):
    return registry.metrics[name](*map(list, zip(*rows, strict=True)))


@quick
@given(one_each)
def test_bleu_and_chrf_are_sacrebleus(rows):
    written, true = [text for text, _ in rows], [[wanted[0] for _, wanted in rows]]
    assert ours("bleu", rows) == min(1.0, sacrebleu.corpus_bleu(written, true).score / 100)
    assert ours("chrf", rows) == min(1.0, sacrebleu.corpus_chrf(written, true).score / 100)


@quick
@given(several)
def test_rows_may_have_several_true_texts_and_not_all_as_many(rows):
    """sacreBLEU's own way to say that a row has fewer is None, in BLEU; of chrF the best one counts in any case."""
    most = max(len(wanted) for _, wanted in rows)
    streams = [[wanted[i] if i < len(wanted) else None for _, wanted in rows] for i in range(most)]
    written = [text for text, _ in rows]
    assert ours("bleu", rows) == pytest.approx(min(1.0, sacrebleu.corpus_bleu(written, streams).score / 100))
    assert ours("chrf", rows) == pytest.approx(min(1.0, sacrebleu.corpus_chrf(written, streams).score / 100))


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
@quick
@given(several)
def test_rouge_is_rouge_scores_and_of_several_true_texts_the_best_counts(name, rows):
    scorer = RougeScorer([name], use_stemmer=True)
    best = [max(scorer.score(true, text)[name].fmeasure for true in wanted) for text, wanted in rows]
    assert ours(name, rows) == pytest.approx(statistics.fmean(best))


@pytest.mark.parametrize("name", NAMES)
@quick
@given(st.lists(told, min_size=1, max_size=5))
def test_a_text_that_is_the_true_one_is_never_worse_than_another(name, true):
    same = ours(name, [(text, [text]) for text in true])
    assert 0 <= ours(name, [("zzz", [text]) for text in true]) <= same <= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("written", "true", "said"),
    [
        (["a"], ["a"], "row 0: the prediction must be a string and the references a list of one or more strings"),
        (["a", 3], [["a"], ["b"]], "row 1: the prediction must be a string"),
        (["a"], [[]], "row 0: the prediction must be a string and the references a list of one or more strings"),
        (["a"], [[None]], "row 0: the prediction must be a string and the references a list of one or more strings"),
        (["a", "b"], [["a"]], "2"),
        ([], [], "a metric needs at least one row"),
    ],
)
def test_what_is_no_text_is_named_by_row(name, written, true, said):
    with pytest.raises(DataError) as error:
        registry.metrics[name](written, true)
    assert said in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_packages_it_says_what_to_install(name, monkeypatch):
    def missing(package):
        raise ImportError(package)

    monkeypatch.setattr("nlp_mtl.metrics.texts.importlib.import_module", missing)
    with pytest.raises(NotFoundError, match=r"nlp_mtl\[seq2seq\]"):
        registry.metrics[name](["a"], [["a"]])


def test_doctests():
    found = doctest.testmod(importlib.import_module("nlp_mtl.metrics.texts"))
    assert found.attempted == len(NAMES) and not found.failed
