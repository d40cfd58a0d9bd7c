# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Reading completions and gold answers: where the reasoning ends and what the final answer is.

Scope: plain and conversational TRL completions, `<think>` tags, `\boxed{}` / `<answer>` / "the answer is". Does not
cover: whether an answer is right (`comparison.py`).
"""

import math
import re
from dataclasses import dataclass

import numpy

from .notation import strip_bold


# A longer "answer" is not an answer; the bound also keeps the comparison cheap. Ours.
MAX_ANSWER_CHARS = 1000
# A text that repeats an unclosed box for ever must not cost the square of its length. Ours.
MAX_BOXES = 64
_LONG_GOLD = 200

# What opens or closes a formula on a line of its own.
_DELIMITER = r"(?:\$\$|\\\[|\\\]|\\\(|\\\))"
_STATED_RE = re.compile(
    rf"(?:\b(?:answer|option|choice)\b\**\s*(?:is\b|are\b|:|：|=|(?=\$|\\[(\[]))"
    rf"|答案(?:应该?)?\s*[是为选:：】]+|(?:故|应|所以|因此)选|(?:^|\s)答[:：])"
    rf"(?:[\s:：*]|{_DELIMITER}[ \t]*\n)*([^\s*:：][^\n]*)",
    re.IGNORECASE,
)
# Behind a box only what is clearly an answer counts: not "this answer is correct".
_LATER_RE = re.compile(
    r"(?:\banswer\b\**\s*(?:is\b|:|=)[\s:*]*|答案\s*[是为:：]\s*|故选\s*)"
    r"(?=[-+(\[$\\]*(?:\d|\\(?!boxed)|[A-J]\b(?!\s+[a-z])))([^\n]*)|\*\*Answer:\s*([^\n]*)",
    re.IGNORECASE,
)
_DENIED_RE = re.compile(r"\W*(?:is|was)\s+(?:wrong|incorrect|not\s+(?:right|correct|the))")
_EMPTY_LINE_RE = re.compile(rf"[\s*]*+{_DELIMITER}?[\s*.]*")
_TAG_RE = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_BOX_RE = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=[\dA-J]\b))")
# Boxes of one sentence are a list: `\boxed{3} papers and \boxed{5} bins`, `x = \boxed{3}, y = \boxed{5}`.
_JOINED_RE = re.compile(r"[,;、，；&]|\b(?:and|or)\b|[和或及]")
_NEXT_STEP_RE = re.compile(
    r"[.!?。]\s+\S|\n\s*\n|[≈→⇒]|\\(?:approx|implies|Rightarrow|to)\b"
    r"|\b(?:then|so|thus|hence|therefore|which|gives?|get|is|but|not)\b"
)
_MOST_WORDS_BETWEEN = 3
# A sentence behind an answer, unless it takes it back; what a template or the next turn adds.
_NEXT_SENTENCE_RE = re.compile(
    r"(?<=[^.])\.\**\s+(?=[A-Z\"'*(])(?!(?:Or|But|However|Wait|No|Actually|Maybe|Perhaps|Alternatively)\b).*",
    re.DOTALL,
)
_ADDED_RE = re.compile(r"(?<!\s)\s*+(?:I hope it is correct\.?\s*+)?(?:<\|[a-z_]+\|>.*)?$", re.DOTALL)
_SENTENCE_RE = re.compile(r"(?<=[^.][.!?])(?:\$\$?|\\[)\]])?\s+(?=[A-Z\\$])")
_FORMULA_RE = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_SAYS_RE = re.compile(r"(?:\b(?:is|are|equals|get|be|have)|[:=])\s*$")
_NEGATES_RE = re.compile(r"\bnot\b|n't\b|\bor\b")


@dataclass(frozen=True)
class Answer:
    """A final answer found in a completion, without its box or tag."""

    text: str
    anchored: bool  # marked (`\\boxed{}`, `<answer>`, "the answer is"), or simply the last line


def message_text(content) -> str:
    """Text of one message's `content`: a string, `None` (a pure tool call), or TRL's list of typed parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def completion_text(completion) -> str:
    """
    Text of a completion, plain or conversational. Of several messages (tool use) the last assistant message counts,
    reasoning that was parsed into `reasoning_content` (or `thinking`) again in `<think>` tags; without one, `""`.
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
    """
    Reasoning and answer of a completion, split at its last `</think>`. The answer is `None` where the reasoning was
    opened, by the prompt with `think_open`, and never closed; the reasoning is `None` where there are no tags at all.
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


def boxes(text: str) -> list[tuple[int, int, str | None]]:
    r"""Start, end and content of the last `MAX_BOXES` of `\boxed{...}` and `\fbox{...}`; `None` for an open one."""
    found = []
    for match in list(_BOX_RE.finditer(text))[-MAX_BOXES:]:
        content = _braced(text, match.end() - 1) if match[0].endswith("{") else text[match.end()]
        end = match.end() + (len(content) + 1 if content is not None else 0)
        found.append((match.start(), end, None if content is None else content.strip()))
    return found


def last_boxed(text: str) -> str | None:
    r"""
    Content of the last box, with those that stand before it in the same sentence: `\boxed{3} and \boxed{5}` is `3, 5`,
    and `\boxed{3} or \boxed{5}` is `3 or 5`. `None` where there is none, or the last does not close.
    """
    found = boxes(text)
    if not found or found[-1][2] is None:
        return None
    joined = found[-1][2]
    for (_, end, content), (start, _, following) in zip(found[-2::-1], found[:0:-1], strict=False):
        between = text[end:start]
        words = re.findall(r"(?<!\\)\b[A-Za-z]{2,}", _JOINED_RE.sub(" ", between))
        if (
            (between.strip() and not _JOINED_RE.search(between))
            or _NEXT_STEP_RE.search(between)
            or len(words) > _MOST_WORDS_BETWEEN
            or content is None
        ):
            break
        if content != following:
            joined = f"{content}{' or ' if re.search('or|或', between) else ', '}{joined}"
    return joined


def final_answer(text: str, think_open: bool = False) -> Answer | None:
    """
    The final answer of a completion: whichever of the boxes of the last sentence that has some, `<answer>`, and an
    explicit "the answer is …" behind them comes last; else what follows "answer is", "answer:", "答案", "故选"; else
    the last line. `None` where none was given: reasoning never closed, nothing after it, a last box that is not closed
    or taken back, or more than `MAX_ANSWER_CHARS`. Boxes inside the reasoning do not count.
    """
    part = _ADDED_RE.sub("", split_reasoning(text, think_open)[1] or "")
    if not part:
        return None
    found, tags = boxes(part), list(_TAG_RE.finditer(part))
    if tags and (not found or tags[-1].end() > found[-1][0]):
        inside = tags[-1].group(1).strip()
        answer = Answer(last_boxed(inside) if boxes(inside) else inside, anchored=True)
    elif found:
        behind = part[found[-1][1] :]
        later = list(_LATER_RE.finditer(behind))
        if later:
            answer = Answer(_first_sentence(later[-1][1] or later[-1][2] or ""), anchored=True)
        else:
            answer = Answer(None if _DENIED_RE.match(behind) else last_boxed(part), anchored=True)
    else:
        answer = _unmarked(part)
    return answer if answer.text and len(answer.text) <= MAX_ANSWER_CHARS else None


def _first_sentence(text: str) -> str:
    return strip_bold(_NEXT_SENTENCE_RE.sub("", text))


def _unmarked(part: str) -> Answer:
    """What "the answer is" says, else the last line: its last sentence, or the formula in which that ends."""
    stated = _STATED_RE.findall(part)
    if stated:
        return Answer(_first_sentence(stated[-1]), anchored=True)
    lines = [line for line in part.splitlines() if not _EMPTY_LINE_RE.fullmatch(line)]
    sentence = _SENTENCE_RE.split(lines[-1])[-1] if lines else ""
    formulas = list(_FORMULA_RE.finditer(sentence)) if len(sentence) <= MAX_ANSWER_CHARS else []
    if formulas and not _NEGATES_RE.search(sentence):
        last = formulas[-1]
        is_last = not sentence[last.end() :].strip(" .*") and _SAYS_RE.search(sentence[: last.start()])
        if len(formulas) == 1 or is_last:
            return Answer(next(filter(None, last.groups())).strip(), anchored=False)
    return Answer(strip_bold(sentence), anchored=False)


def _shortest(value: float) -> str:
    """A float as it was meant: a column of 32-bit floats turns 0.1 into 0.10000000149011612."""
    text = repr(value)
    is_single = len(text) > 12 and 1e-37 < abs(value) < 1e38 and float(numpy.float32(value)) == value
    return str(numpy.float32(value)) if is_single else text


def gold_text(value) -> str | None:
    r"""
    Gold answer as text: numbers are printed, `\boxed{}`, `<answer>` and GSM8K's `####` are opened. `None` for an
    empty, missing or not-a-number gold.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    text = (_shortest(value) if isinstance(value, float) else str(value)).strip()
    if boxes(text):
        return last_boxed(text) or None
    tags = _TAG_RE.findall(text)
    if tags:
        return tags[-1].strip() or None
    if "####" in text:
        text = text.rpartition("####")[2].strip()
    elif len(text) > _LONG_GOLD or "\n" in text:  # a whole solution
        stated = _STATED_RE.findall(text)
        text = _first_sentence(_ADDED_RE.sub("", stated[-1])) if stated else text
    return text or None
