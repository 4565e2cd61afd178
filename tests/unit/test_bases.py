"""Pretrained folders that are not whole, not safe or not known: refused in words, with a way out."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from nlp_mtl.bases import find_base
from nlp_mtl.errors import NotFoundError, RunFolderError, UnsupportedError
from nlp_mtl.opening import load_encoder, open_base
from nlp_mtl.testing import tiny_encoder, tiny_tokenizer


@pytest.fixture
def base(tmp_path):
    """A whole pretrained folder."""
    tiny_encoder("bert").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def change_config(folder, **changes):
    said = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def test_a_whole_folder_is_opened(base):
    found = find_base(base)
    assert found.sha256() == hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    tokenizer, encoder = open_base(found.folder)
    assert tokenizer.is_fast
    assert next(encoder.parameters()).dtype == torch.float32


def test_a_folder_of_a_known_kind_with_code_of_its_own_is_read_without_that_code(base):
    change_config(base, auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"})
    (base / "mine.py").write_text("raise SystemExit('this was run')")
    assert type(open_base(base)[1]).__module__.startswith("transformers.")


def test_weights_that_would_be_unpickled_are_not_read(base):
    torch.save(load_encoder(base).state_dict(), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(NotFoundError) as caught:
        find_base(base)
    message = str(caught.value)
    assert "in safetensors format" in message
    assert "pytorch_model.bin, which is not read: nothing is unpickled" in message
    assert "save_pretrained(new)" in message
    with pytest.raises(NotFoundError, match=r"model\.safetensors"):
        load_encoder(base)


def test_a_folder_without_weights(base):
    (base / "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match=r"(?s)model\.safetensors is not.*copy or download") as caught:
        find_base(base)
    assert "unpickled" not in str(caught.value)
    with pytest.raises(NotFoundError, match="a file of the model in"):
        open_base(base)


@pytest.mark.parametrize("keep", [0, 500, -500])
def test_weights_that_were_cut_off(base, keep):
    whole = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(whole[:keep])
    with pytest.raises(RunFolderError, match=r"the weights are damaged .*copy or download the model again"):
        open_base(base)


def test_a_missing_shard(base):
    (base / "model.safetensors").unlink()
    said = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "model-00001-of-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(said))
    with pytest.raises(NotFoundError, match="model-00001-of-00002"):
        load_encoder(base)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}}, r"code of its own .*never run"),
        ({"model_type": "brt"}, "found 'brt'; did you mean 'bert'"),
        ({"model_type": None}, "found None"),
    ],
)
def test_models_that_are_not_for_us(base, changes, said):
    change_config(base, **changes)
    with pytest.raises(UnsupportedError, match=said):
        load_encoder(base)


@pytest.mark.parametrize("text", ["{", "[]", '"bert"'])
def test_a_config_that_is_no_config(base, text):
    (base / "config.json").write_text(text)
    with pytest.raises((RunFolderError, UnsupportedError), match=r"config\.json"):
        open_base(base)


def test_a_config_that_is_not_there(base):
    (base / "config.json").unlink()
    with pytest.raises(NotFoundError, match=r"config\.json is not there"):
        open_base(base)


@pytest.mark.parametrize("changes", [{"hidden_size": 48, "num_attention_heads": 2}, {"hidden_size": "wide"}])
def test_a_config_that_does_not_fit_its_weights(base, changes):
    change_config(base, **changes)
    with pytest.raises(RunFolderError, match=r"transformers can't read its model"):
        load_encoder(base)


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_damaged_tokenizer(base, text):
    (base / "tokenizer.json").write_text(text)
    with pytest.raises(RunFolderError, match="transformers can't read its tokenizer"):
        open_base(base)


def test_a_folder_without_a_tokenizer(base):
    for file in base.glob("token*"):
        file.unlink()
    with pytest.raises(NotFoundError, match=r"(?s)the tokenizer of the model 'base'.*no vocabulary.*tokenizer\.json"):
        open_base(base)
