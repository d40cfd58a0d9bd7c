# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Chat templates that drop the reasoning of the response that is trained on.

Templates of reasoning models, DeepSeek-R1's and QwQ's among them, cut an answer's text up to `</think>`: right for the
history of a chat, wrong for a training target. Two responses that differ in their reasoning alone become the same
tokens. TRL has training templates for some of them and uses these in SFT on assistant turns alone. Can go when DPO,
reward training and SFT on completions do too.
"""

import copy

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from trl.chat_template_utils import get_training_chat_template


END_OF_REASONING = "</think>"
RESPONSES = ("chosen", "rejected", "completion")


def with_whole_responses(processing_class: PreTrainedTokenizerBase | ProcessorMixin, dataset=None):
    """
    The tokenizer or processor, which is left as it is for what is saved, or a copy of it with TRL's training template,
    which renders responses with their reasoning. If no response in a `Dataset` reasons, any template will do; rows of
    another kind may reason. A `ValueError` if the template drops reasoning and TRL has none in its place, or a
    response repeats its prompt.
    """
    reasons = _read_responses(dataset) if isinstance(dataset, Dataset) else True
    if not reasons or processing_class.chat_template is None or _keeps_reasoning(processing_class):
        return processing_class
    trained = copy.copy(processing_class)
    try:
        trained.chat_template = get_training_chat_template(processing_class)
    except ValueError:
        trained.chat_template = None
    if trained.chat_template is None or not _keeps_reasoning(trained):
        tokenizer = processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r}, {str(processing_class.chat_template)[:60]!r}…, drops "
            f"what a response has before {END_OF_REASONING!r}, so that the reasoning would not be trained on, and TRL "
            "has no training template in its place. Set a `chat_template` that renders the assistant's text as it is."
        )
    return trained


def _keeps_reasoning(processing_class) -> bool:
    turns = {"user": "question", "assistant": f"<think>reasoning{END_OF_REASONING}answer"}
    if isinstance(processing_class, ProcessorMixin):
        turns = {role: [{"type": "text", "text": text}] for role, text in turns.items()}
    messages = [{"role": role, "content": content} for role, content in turns.items()]
    return "reasoning" in processing_class.apply_chat_template(messages, tokenize=False)


def _read_responses(dataset: Dataset) -> bool:
    """Whether a response reasons; refuses one that begins with the messages of its prompt."""
    columns = [name for name in ("prompt", *RESPONSES) if name in dataset.column_names]
    reasons = False
    for index, row in enumerate(dataset.select_columns(columns)):
        prompt = row.pop("prompt", None)
        for name, response in row.items():
            reasons = reasons or END_OF_REASONING in str(response)
            if prompt and isinstance(prompt, list) and response[: len(prompt)] == prompt:
                raise ValueError(
                    f"row {index}: {name!r} begins with the messages of its 'prompt', which would be trained on "
                    f"twice. Keep the answer alone: `dataset.map(lambda row: {{{name!r}: "
                    f"row[{name!r}][len(row['prompt']):]}})`."
                )
    return reasons
