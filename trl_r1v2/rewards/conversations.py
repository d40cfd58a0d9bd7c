# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What a reward model reads: the conversation of prompt, images and response, and its tokens.

Scope: one place for scoring (`reward_model.py`) and training (`reward_collator.py`), so that both see the same tokens.
Does not cover: the model; taking answers apart (`answers.py`).
"""

import re

from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from ..patches.whole_responses import with_whole_responses
from .answers import message_text


_TEMPLATE = {"tokenize": True, "return_dict": True, "add_generation_prompt": False}


def judged_conversation(prompt: str | list[dict], response: str) -> list[dict]:
    """
    The messages to judge, the last one the response: of a prompt in text, which becomes a user message, or in
    messages, of which a prefill at their end belongs to the response.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if messages[-1]["role"] == "assistant":
        response = message_text(messages.pop()["content"]) + response
    return [*messages, {"role": "assistant", "content": response}]


class ConversationEncoder:
    r"""
    Tokens and pixels of conversations that end with the response to judge.

    The chat template is applied without generation prompt (arXiv 2505.07263). Special tokens written as text inside a
    message become blanks, so that a response can neither open a turn of its own nor insert image tokens. `<think>` is
    not special in the tokenizers of reasoning models, and stays. Nothing is truncated: the score is read off the last
    token.

    Args:
        processor ([`~transformers.ProcessorMixin`] or tokenizer): A processor, for models that see images, or a
            tokenizer.
        pad_to_multiple_of (`int`, *optional*): Multiple that the padded length is rounded up to.

    Raises:
        `ValueError`: For a tokenizer without padding token, or a chat template that drops the reasoning of responses
            and that TRL has no training template for.
    """

    def __init__(self, processor: ProcessorMixin | PreTrainedTokenizerBase, pad_to_multiple_of: int | None = None):
        self.sees_images = isinstance(processor, ProcessorMixin)
        processor = self.processor = with_whole_responses(processor)
        self.tokenizer = processor.tokenizer if self.sees_images else processor
        if self.tokenizer.pad_token_id is None:
            raise ValueError("The reward model's tokenizer has no padding token; set `pad_token` in its folder.")
        special = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        # no part of a special token, so that what it parts cannot become one
        self._blank = next(char for char in " \n\t\ufffd" if not any(char in token for token in special))
        self._options = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        self._options["pad_to_multiple_of"] = pad_to_multiple_of

    def __call__(self, conversations: list[list[dict]]) -> BatchFeature:
        """
        `input_ids` and `attention_mask` of shape `(batch_size, length)`, and what the processor makes of the images,
        for conversations in messages, the last one the response; images as parts `{"type": "image", "image": image}`.
        """
        conversations = [self.without_special_tokens(messages) for messages in conversations]
        if self.sees_images:
            return self.processor.apply_chat_template(conversations, processor_kwargs=self._options, **_TEMPLATE)
        plain = [
            [{**message, "content": message_text(message["content"])} for message in messages]
            for messages in conversations
        ]
        if self.tokenizer.chat_template is None:  # an encoder: prompt and response are a pair of texts
            prompts = ["\n".join(message["content"] for message in messages[:-1]) for messages in plain]
            return self.tokenizer(
                prompts, [messages[-1]["content"] for messages in plain], truncation=False, **self._options
            )
        return self.tokenizer.apply_chat_template(plain, sanitize_control_tokens=True, **_TEMPLATE, **self._options)

    def without_special_tokens(self, messages: list[dict]) -> list[dict]:
        """The messages, blanks for the special tokens in their text."""

        def cleaned(content):
            if isinstance(content, str):
                return self._special.sub(self._blank, content)
            return [{**part, "text": cleaned(part["text"])} if part["type"] == "text" else part for part in content]

        return [{**message, "content": cleaned(message["content"])} for message in messages]
