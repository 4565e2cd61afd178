"""Opening an encoder: how long its sequences may be."""

import pytest

from nlp_mtl.errors import ConfigError
from nlp_mtl.opening import checked_length
from nlp_mtl.testing import tiny_encoder, tiny_tokenizer


@pytest.mark.parametrize(("family", "positions", "limit"), [("bert", 66, 66), ("roberta", 66, 64), ("bert", 100, 100)])
def test_an_encoder_reads_as_many_tokens_as_it_has_positions(family, positions, limit):
    encoder = tiny_encoder(family, max_position_embeddings=positions)
    if family == "roberta":
        limit = positions - encoder.config.pad_token_id - 1
    assert checked_length(limit, tiny_tokenizer(), encoder) == limit
    with pytest.raises(ConfigError, match=f"max_length: from 4 to {limit} for this encoder, found {limit + 1}"):
        checked_length(limit + 1, tiny_tokenizer(), encoder)
    assert checked_length(None, tiny_tokenizer(), encoder) == min(limit, 512)
