# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Reading completions and gold answers: where the reasoning ends and what the final answer is.

Scope: plain and conversational TRL completions, `<think>` tags, `\boxed{}` / `<answer>` / "the answer is". Does not
cover: whether an answer is right (`comparison.py`).
"""

import math
import re
import struct
from dataclasses import dataclass


# A longer "answer" is not an answer; the bound also keeps the comparison cheap. Ours.
MAX_ANSWER_CHARS = 1000
# A text that repeats an unclosed box for ever must not cost the square of its length. Ours.
MAX_BOXES = 64

# What opens or closes a formula on a line of its own.
_DELIMITER = r"(?:\$\$|\\\[|\\\]|\\\(|\\\))"
_STATED_RE = re.compile(
    rf"\b(?:answer|option|choice)\b\**\s*(?:is\b|are\b|:|=)(?:[\s:*]|{_DELIMITER}[ \t]*\n)*([^\s*:][^\n]*)",
    re.IGNORECASE,
)
_EMPTY_LINE_RE = re.compile(rf"[\s*]*+{_DELIMITER}?[\s*.]*")
_TAG_RE = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """
    A final answer found in a completion.

    Args:
        text (`str`):
            The answer, without its box or tag.
        anchored (`bool`):
            Whether it was marked (`\\boxed{}`, `<answer>`, "the answer is"), or is simply the last line.
    """

    text: str
    anchored: bool


def message_text(content) -> str:
    """Text of one message's `content`: a string, `None` (a pure tool call), or TRL's list of typed parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def completion_text(completion) -> str:
    r"""
    Text the policy produced last, with its reasoning.

    Args:
        completion (`str` or `list[dict]`):
            A plain completion, or a conversational one. Of several messages (tool use), the last assistant message
            counts. A message whose reasoning was parsed into `reasoning_content` (or `thinking`) is put back into
            `<think>` tags.

    Returns:
        `str`: The text; empty if no assistant message is there.
    """
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message.get("role", "assistant") != "assistant":
            continue
        text = message_text(message.get("content"))
        reasoning = message.get("reasoning_content") or message.get("thinking")
        return f"<think>{reasoning}</think>\n{text}" if reasoning else text
    return ""


def prompt_opens_think(prompt) -> bool:
    """Whether a prompt (plain, or conversational with an assistant prefill) already ends with `<think>`."""
    if not isinstance(prompt, str):
        last = prompt[-1] if prompt else {"role": "user"}
        prompt = message_text(last.get("content")) if last["role"] == "assistant" else ""
    return prompt.rstrip().endswith("<think>")


def split_reasoning(text: str, think_open: bool = False) -> tuple[str | None, str | None]:
    r"""
    Split a completion at its last `</think>`.

    Args:
        text (`str`):
            Completion.
        think_open (`bool`, *optional*, defaults to `False`):
            Whether the prompt already opened `<think>`.

    Returns:
        `tuple[str | None, str | None]`: Reasoning and answer part. The answer part is `None` where the reasoning was
        opened and never closed; the reasoning is `None` where there are no tags at all.
    """
    head, close, tail = text.rpartition("</think>")
    if close:
        return head.replace("<think>", "").strip(), tail.strip()
    if think_open or "<think>" in text:
        return text.replace("<think>", "").strip(), None
    return None, text.strip()


def _braced(text: str, start: int) -> str | None:
    """
    Content of the brace group that opens at `text[start]`; `None` if it does not close within the length of an answer.
    Escaped braces do not count.
    """
    depth = 0
    index = start
    while index < min(len(text), start + MAX_ANSWER_CHARS + 2):
        char = text[index]
        if char == "\\":
            index += 2
            continue
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[start + 1 : index]
        index += 1
    return None


def last_boxed(text: str) -> tuple[int, str] | None:
    r"""
    Position and content of the last complete `\boxed{...}` (or `\fbox{...}`), nested braces included, among the last
    `MAX_BOXES`.
    """
    for match in reversed(list(re.finditer(r"\\f?boxed\s*\{", text))[-MAX_BOXES:]):
        content = _braced(text, match.end() - 1)
        if content is not None:
            return match.start(), content.strip()
    return None


def strip_bold(text: str) -> str:
    """Remove markdown's bold around a text, also half of it; of "**C** is right" nothing, where it marks a part."""
    inner = text.strip().strip("*").strip()
    return text.strip() if "**" in inner else inner


def final_answer(text: str, think_open: bool = False) -> Answer | None:
    r"""
    The final answer of a completion: whichever of `\boxed{}` and `<answer>` comes last, else what follows "answer is"
    or "answer:", else the last line. Boxes inside the reasoning do not count.

    Returns:
        `Answer` or `None`: `None` where no answer was given (reasoning never closed, nothing after it, or more than
        `MAX_ANSWER_CHARS`).
    """
    part = split_reasoning(text, think_open)[1]
    if not part:
        return None
    boxed = last_boxed(part)
    tags = list(_TAG_RE.finditer(part))
    if tags and (boxed is None or tags[-1].end() > boxed[0]):
        inner = last_boxed(tags[-1].group(1))
        found = Answer(inner[1] if inner else tags[-1].group(1).strip(), anchored=True)
    elif boxed is not None:
        found = Answer(boxed[1], anchored=True)
    else:
        stated = _STATED_RE.findall(part)
        lines = [line for line in part.splitlines() if not _EMPTY_LINE_RE.fullmatch(line)]
        found = Answer(strip_bold((stated or lines or [""])[-1]), anchored=bool(stated))
    return found if 0 < len(found.text) <= MAX_ANSWER_CHARS else None


def _shortest(value: float) -> str:
    """A float as it was meant: a column of 32-bit floats turns 0.1 into 0.10000000149011612."""
    text = repr(value)
    if len(text) < 13 or not 1e-37 < abs(value) < 1e38:
        return text
    single = struct.Struct("f")
    if single.unpack(single.pack(value))[0] != value:
        return text
    return next(
        short
        for short in (f"{value:.{digits}g}" for digits in range(6, 10))
        if single.unpack(single.pack(float(short)))[0] == value
    )


def gold_text(value) -> str | None:
    r"""
    Gold answer as text: numbers are printed, `\boxed{}`, `<answer>` and GSM8K's `####` are opened. `None` for an
    empty, missing or not-a-number gold.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    text = (_shortest(value) if isinstance(value, float) else str(value)).strip()
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed[1] or None
    tags = _TAG_RE.findall(text)
    if tags:
        return tags[-1].strip() or None
    if "####" in text:
        text = text.rpartition("####")[2].strip()
    return text or None
