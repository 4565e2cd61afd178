"""A task of nlp_mtl as a model of its own, for what the family's own class does not compute.

This file goes into the exported folder as it is, and needs torch and transformers only:
``AutoModelFor….from_pretrained(folder, trust_remote_code=True)``.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions, SequenceClassifierOutput


class TaskConfig(PretrainedConfig):
    """What a :class:`TaskModel` is made of.

    Args:
        family: the family's config, as a dictionary.
        head: the family's class whose head reads the pooled vector, or ``"linear"`` for one linear layer.
        pooling: ``mean``, ``cls`` or ``last``: which vector of a sequence the head reads.
        choices: whether a row is several sequences, each given one score.
    """

    model_type = "nlp_mtl_task"

    def __init__(
        self,
        family: dict[str, Any] | None = None,
        head: str = "linear",
        pooling: str = "mean",
        choices: bool = False,
        **kwargs: Any,
    ):
        self.family, self.head, self.pooling, self.choices = family or {}, head, pooling, choices
        super().__init__(**kwargs)

    def family_config(self) -> Any:
        """The family's config."""
        known = {key: value for key, value in self.family.items() if key != "model_type"}
        return AutoConfig.for_model(self.family["model_type"], **known)


class Encoded(nn.Module):
    """Stands where the head's encoder was: hands back the states it is given."""

    def forward(self, *unused: Any, inputs_embeds: Tensor, **ignored: Any) -> Any:
        """Give back states [rows, 1, hidden], and the vector of each [rows, hidden]."""
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=inputs_embeds, pooler_output=inputs_embeds[:, 0]
        )


class TaskModel(PreTrainedModel):
    """An encoder, one vector per sequence, and a head on it.

    Args:
        config: a :class:`TaskConfig`.
    """

    config_class = TaskConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: TaskConfig):
        super().__init__(config)
        family = config.family_config()
        known = inspect.signature(AutoModel._model_mapping[type(family)].__init__).parameters
        plain = {"add_pooling_layer": False} if "add_pooling_layer" in known else {}
        self.encoder = AutoModel.from_config(family, **plain)
        if config.head == "linear":
            self.head: Any = nn.Linear(family.hidden_size, 1)
        else:
            self.head = getattr(transformers, config.head).from_config(family)
            setattr(self.head, self.head.base_model_prefix, Encoded())
        self.takes = set(inspect.signature(type(self.encoder).forward).parameters)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Logits [rows, labels], or [rows, choices] where a row is several sequences.

        Args:
            input_ids: [rows, length], or [rows, choices, length].
            attention_mask, token_type_ids: of the same shape.
            return_dict: a tuple where it is False.
            kwargs: more for the encoder.
        """
        rows = input_ids.shape[0]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        length = input_ids.shape[-1]
        inputs = {"input_ids": input_ids.reshape(-1, length), "attention_mask": mask.reshape(-1, length)}
        if token_type_ids is not None and "token_type_ids" in self.takes:
            inputs["token_type_ids"] = token_type_ids.reshape(-1, length)
        if "use_cache" in self.takes:
            inputs["use_cache"] = False  # type: ignore[assignment]
        hidden = self.encoder(**inputs, **kwargs).last_hidden_state
        vector = self.pooled(hidden, inputs["attention_mask"])
        if self.config.head == "linear":
            logits = self.head(vector)
        else:
            states = vector[:, None, None] if self.config.choices else vector[:, None]
            ids = torch.zeros(states.shape[:-1], dtype=torch.long, device=states.device)
            logits = self.head(input_ids=ids, inputs_embeds=states).logits
        if self.config.choices:
            logits = logits.reshape(rows, -1)
        return SequenceClassifierOutput(logits=logits) if return_dict is not False else (logits,)

    def pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[sequences, hidden]: the vector that the head reads.

        Args:
            hidden: [sequences, length, hidden].
            mask: [sequences, length], 1 for tokens.
        """
        if self.config.pooling == "mean":
            weights = mask[..., None].to(hidden.dtype)
            return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)
        if self.config.pooling == "last":
            place = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(-1)
            return hidden[torch.arange(hidden.shape[0], device=hidden.device), place]
        return hidden[:, 0]
