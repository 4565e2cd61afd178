"""Multiple-choice questions as a decoder reads them: a prompt that ends in "Answer:", and how likely each letter is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

LETTERS = "ABCD"


@dataclass(frozen=True)
class Prompt:
    """A question in tokens.

    Attributes:
        context: token numbers of the prompt.
        letters: for each choice the token numbers of its letter.
        shots: how many solved questions stand before it.
        cut: tokens left out at its front, where it is too long without any.
    """

    context: list[int]
    letters: list[list[int]]
    shots: int
    cut: int = 0


def question(row: Mapping[str, Any], *, solved: bool) -> str:
    r"""A question with its choices, as the authors write it.

    Example:
        >>> question({"question": "1 + 1?", "choices": ["1", "2"], "answer": 1}, solved=True)
        '1 + 1?\nA. 1\nB. 2\nAnswer: B\n\n'
    """
    choices = "".join(f"\n{LETTERS[i]}. {choice}" for i, choice in enumerate(row["choices"]))
    return f"{row['question']}{choices}\nAnswer:" + (f" {LETTERS[row['answer']]}\n\n" if solved else "")


def header(subject: str) -> str:
    """The first line, with the two spaces that the authors' program makes.

    Example:
        >>> header("college_physics").splitlines()[0]
        'The following are multiple choice questions (with answers) about  college physics.'
    """
    named = "".join(f" {word}" for word in subject.split("_"))
    return f"The following are multiple choice questions (with answers) about {named}.\n\n"


def prompt(row: Mapping[str, Any], shots: Sequence[Mapping[str, Any]], tokenizer: Any, most: int | None) -> Prompt:
    """A question after solved ones; of a prompt that is too long the first solved ones are left out.

    (The authors' program leaves out the last ones.) What no shot can mend is cut at the front.

    Args:
        row: the question: columns question, choices, subject.
        shots: solved questions of the subject.
        tokenizer: of the decoder.
        most: tokens that the decoder can read; None for any number.
    """
    texts = [question(shot, solved=True) for shot in shots]
    for first in range(len(texts) + 1):
        context, letters = _tokens(
            header(row["subject"]) + "".join(texts[first:]) + question(row, solved=False),
            len(row["choices"]),
            tokenizer,
        )
        over = 0 if most is None else len(context) + max(map(len, letters)) - 1 - most
        if over <= 0 or first == len(texts):
            return Prompt(context[max(0, over) :], letters, len(texts) - first, max(0, over))
    raise AssertionError("unreachable")


def _tokens(text: str, choices: int, tokenizer: Any) -> tuple[list[int], list[list[int]]]:
    """The tokens that the prompt shares with all answered ones, and what each answered one has after them."""
    whole = tokenizer([text, *(f"{text} {letter}" for letter in LETTERS[:choices])])["input_ids"]
    shared = 0
    for column in zip(*whole, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    return whole[0][:shared], [ids[shared:] for ids in whole[1:]]


@torch.inference_mode()
def log_likelihoods(model: Any, prompts: Sequence[Prompt]) -> list[list[float]]:
    """For each prompt the log-likelihood of each letter after it.

    Where all letters are one token, which they are for most tokenizers, one pass gives all of them; else each answered
    prompt is a sequence of its own, and its letter's tokens are added up.

    Args:
        model: a causal decoder, in eval mode.
        prompts: the prompts.

    Relations:
        Like one option at a time with `transformers`, but with a quarter of the passes.
    """
    sequences: list[list[int]] = []
    read: list[tuple[int, int, int, int, int]] = []  # sequence, position, token, prompt, letter
    for number, one in enumerate(prompts):
        single = all(len(ids) == 1 for ids in one.letters)
        if single:
            sequences.append(one.context)
        for letter, ids in enumerate(one.letters):
            if not single:
                sequences.append([*one.context, *ids[:-1]])
            for place, token in enumerate(ids):
                read.append((len(sequences) - 1, len(one.context) - 1 + place, token, number, letter))
    found = [[0.0] * len(one.letters) for one in prompts]
    places = sorted({position for _, position, _, _, _ in read})
    logits = _logits(model, sequences, places)
    column = {position: i for i, position in enumerate(places)}
    for sequence, position, token, number, letter in read:
        found[number][letter] += float(torch.log_softmax(logits[sequence, column[position]].float(), -1)[token])
    return found


def _logits(model: Any, sequences: Sequence[Sequence[int]], places: Sequence[int]) -> torch.Tensor:
    """[sequences, places, vocabulary]; rows are padded on the right, where causal attention does not look."""
    device = next(model.parameters()).device
    ids = pad_sequence([torch.tensor(one) for one in sequences], batch_first=True).to(device)
    mask = pad_sequence([torch.ones(len(one), dtype=torch.long) for one in sequences], batch_first=True).to(device)
    index = torch.tensor(places, device=device)
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=index).logits
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, index]
