"""The page of `nlp-mtl demo` in a real browser: what it shows is what `predict` says, and it asks nobody else."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from urllib.parse import urlsplit

import pytest
import torch

from nlp_mtl import prediction
from nlp_mtl.errors import ConfigError, DataError
from nlp_mtl.serving.answering import Answerer
from nlp_mtl.testing import tiny_model

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="the extra `demo` is not installed")
torch.set_num_threads(1)  # tiny models: threads would only wait for one another

TASKS = ["cola", "rte", "conll2003", "stsb"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")


@pytest.fixture(scope="module")
def model():
    """A model of three kinds of head whose entities are not everywhere."""
    made = tiny_model(TASKS).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made


@pytest.fixture(scope="module")
def address(model):
    """The page of the model, on a free port."""
    from nlp_mtl.serving.demo import launch, make_demo

    page = make_demo(Answerer(model, dtype="float32"), title="four tasks")
    yield launch(page, "127.0.0.1", 0)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; skipped by name where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    """The page, loaded, and a list of what it asked for."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.asked = []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(address, wait_until="domcontentloaded")
    opened.wait_for_selector("#task-cola >> text=acceptable", timeout=30_000)
    yield opened
    opened.close()


def test_the_page_shows_what_predict_says_and_asks_nobody_else(model, page, tmp_path):
    text, second = "the old cat was in zürich & <b>rome</b>", "a dog is not a cat"
    page.fill("#first textarea", text)
    page.fill("#second textarea", second)
    page.click("#answer")
    single, pair = prediction.predict(model, [text, (text, second)], dtype="float32")
    page.wait_for_function(
        "value => document.querySelector('#task-stsb input').value === value",
        arg=f"{pair['stsb']['value']:.3f}".rstrip("0"),
    )
    for task, answer in (("cola", single["cola"]), ("rte", pair["rte"])):
        shown = page.inner_text(f"#task-{task}").split()
        assert shown.index(answer["label"]) < len(shown) - 1
        assert f"{answer['score']:.0%}" in shown
    marks = page.locator("#task-conll2003 mark").all_inner_texts()
    found = [f"{one['text']} {one['type']} {one['score']:.2f}" for one in single["conll2003"]["entities"]]
    assert marks == found and found
    assert page.locator("#task-conll2003 b").count() == 0, "the text is shown as text"
    assert {urlsplit(url).hostname for url in page.asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
    page.screenshot(path=tmp_path / "demo.png", full_page=True)
    if kept := os.environ.get("NLP_MTL_SCREENSHOTS"):
        shutil.copy(tmp_path / "demo.png", kept)


def test_an_input_that_a_task_can_not_read_is_told(page):
    page.fill("#second textarea", "")
    page.click("#answer")
    page.wait_for_selector("#said >> text=rte reads sentence2 too")
    page.fill("#first textarea", "  ")
    page.click("#answer")
    page.wait_for_selector("#said >> text=the first box holds a text, found none")


def test_what_is_wrong_is_told_before_a_page_is_shown(run, model, tmp_path):
    from nlp_mtl.serving.demo import answers_to

    model.save_pretrained(tmp_path / "run")
    code, _, err = run("demo", tmp_path / "run", "--task", "colla", "--port", "0")
    assert code == 2 and "did you mean 'cola'" in err
    code, _, err = run("demo", tmp_path / "run", "--port", "70000")
    assert code == 2 and "--port is from 0 to 65535" in err
    with pytest.raises(DataError, match="the first box holds a text"):
        answers_to(Answerer(model), "", "a")
    with pytest.raises(ConfigError, match="'x' is not a task of this model"):
        Answerer(tmp_path / "run", tasks=["x"])


def test_a_task_that_writes_shows_its_text_beside_the_others():
    from gradio_client import Client

    from nlp_mtl.serving.demo import launch, make_demo

    made = tiny_model(["cola", "xsum"]).eval()
    (said,) = prediction.predict(made, ["the old cat was in zürich"], dtype="float32")
    page = make_demo(Answerer(made, dtype="float32"))
    address = launch(page, "127.0.0.1", 0)
    try:
        told, label, text = Client(address, verbose=False).predict("the old cat was in zürich", "", api_name="/answer")
    finally:
        page.close(verbose=False)
    assert not told and label["label"] == said["cola"]["label"]
    assert text == said["xsum"]["text"] != ""
