# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
The two rules of R1V2's reward, eq. 7: is the answer right (`r_rule`), is the format kept (`r_format`).

Scope: TRL reward functions over plain and conversational completions. Does not cover: where an answer is found and
compared (`answers.py`, `comparison.py`), shaping rewards such as repetition and
length (`rules_text.py`).
"""

import re
from dataclasses import dataclass

from .answers import Answer, completion_text, final_answer, gold_text, prompt_opens_think
from .comparison import Verdict, compare


_THINK_RE = re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)
_REWARDS = {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0}
_REASONS = (Verdict.UNVERIFIABLE, Verdict.GOLD_UNREAD, Verdict.ANSWER_UNREAD)
# Which of the verdicts on several accepted answers counts.
_ORDER = (Verdict.RIGHT, Verdict.ANSWER_UNREAD, Verdict.GOLD_UNREAD, Verdict.WRONG, Verdict.UNVERIFIABLE)


def think_is_open(prompts, num_rows: int, setting: bool | None) -> list[bool]:
    """For each row: does the prompt open `<think>`? `setting` decides if given, else the prompts themselves."""
    if setting is not None or prompts is None:
        return [bool(setting)] * num_rows
    return [prompt_opens_think(prompt) for prompt in prompts]


@dataclass(eq=False)
class AccuracyReward:
    r"""
    Reward function: 1.0 if the final answer equals the gold, 0.0 if it is wrong or missing, `None` if no rule can tell
    (eq. 7, `r_rule`).

    The answer is what the last `\boxed{}`, `<answer>` or "the answer is" after the reasoning says, else the last line.
    It is compared as a text, a choice letter, words, a quantity with its unit, and as mathematics, all of it or not at
    all: `None` is returned for a gold that is empty, is prose or is not read to its end, and for an answer that is
    not. `log_metric` gets the share of each.

    Args:
        solution_column (`str`, *optional*, defaults to `"solution"`): Dataset column with the gold answer: text, a
            number, or a list of accepted answers.
        think_open (`bool`, *optional*): Whether the prompt opens `<think>`, so that a completion without `</think>`
            has no answer. `None` looks at `prompts`; set it to `True` where the chat template adds the tag (QwQ-32B's
            does).
        name (`str`, *optional*, defaults to `"accuracy_reward"`): Name under which TRL logs it.

    Example:
    ```python
    >>> from trl_r1v2.rewards import accuracy_reward

    >>> accuracy_reward(completions=[r"<think>1+1</think> \boxed{2}", "It is 3."], solution=["2", "2"])
    [1.0, 0.0]
    ```
    """

    solution_column: str = "solution"
    think_open: bool | None = None
    name: str = "accuracy_reward"

    def __post_init__(self):
        self.__name__ = self.name
        self.required_columns = (self.solution_column,)

    def __call__(self, completions, prompts=None, log_extra=None, log_metric=None, **kwargs) -> list[float | None]:
        if self.solution_column not in kwargs:
            raise ValueError(
                f"{self.__name__} needs the dataset column {self.solution_column!r}; the columns here are "
                f"{sorted(kwargs)}. Rename the column, or set `solution_column`."
            )
        golds = kwargs[self.solution_column]
        opened = think_is_open(prompts, len(completions), self.think_open)
        answers = [
            final_answer(completion_text(completion), is_open)
            for completion, is_open in zip(completions, opened, strict=True)
        ]
        verdicts = [self._verdict(answer, gold) for answer, gold in zip(answers, golds, strict=True)]
        if log_metric is not None:
            for reason in _REASONS:
                log_metric(f"{self.__name__}/{reason.value}", verdicts.count(reason) / len(verdicts))
        if log_extra is not None:
            log_extra(f"{self.__name__}/answer", [answer.text if answer else None for answer in answers])
        return [_REWARDS.get(verdict) for verdict in verdicts]

    @staticmethod
    def _verdict(answer: Answer | None, gold) -> Verdict:
        accepted = gold if isinstance(gold, (list, tuple)) else [gold]
        golds = [text for text in map(gold_text, accepted) if text is not None]
        # without an answer it only matters whether there is a gold
        verdicts = {compare(answer or Answer("", anchored=True), text) for text in golds}
        return next((verdict for verdict in _ORDER if verdict in verdicts), Verdict.UNVERIFIABLE)


@dataclass(eq=False)
class FormatReward:
    r"""
    Reward function: 1.0 for `<think>reasoning</think>answer`, else 0.0 (eq. 7, `r_format`; the form is DeepSeek-R1's).

    Each tag occurs once, in this order, nothing but white space precedes, and neither part is empty.

    Args:
        think_open (`bool`, *optional*): As for [`AccuracyReward`]; where the prompt opens `<think>`, the completion
            must not open it again.
        answer_mark (`str`, *optional*): `"boxed"` or `"answer_tag"` if the answer part must also contain `\boxed{}` or
            `<answer>…</answer>`.
        name (`str`, *optional*, defaults to `"format_reward"`): Name under which TRL logs it.
    """

    think_open: bool | None = None
    answer_mark: str | None = None
    name: str = "format_reward"

    def __post_init__(self):
        self.__name__ = self.name
        if self.answer_mark not in (None, "boxed", "answer_tag"):
            raise ValueError(f"answer_mark is {self.answer_mark!r}; it must be None, 'boxed' or 'answer_tag'.")

    def __call__(self, completions, prompts=None, **kwargs) -> list[float]:
        opened = think_is_open(prompts, len(completions), self.think_open)
        return [
            float(self._is_kept(completion_text(completion), is_open))
            for completion, is_open in zip(completions, opened, strict=True)
        ]

    def _is_kept(self, text: str, is_open: bool) -> bool:
        text = f"<think>{text}" if is_open else text
        if text.count("<think>") != 1 or text.count("</think>") != 1:
            return False
        match = _THINK_RE.fullmatch(text)
        if match is None or not match.group(1).strip() or not match.group(2).strip():
            return False
        answer = match.group(2)
        if self.answer_mark == "boxed":
            return r"\boxed{" in answer
        if self.answer_mark == "answer_tag":
            return bool(answer.partition("<answer>")[2].rpartition("</answer>")[0].strip())
        return True


accuracy_reward = AccuracyReward()
format_reward = FormatReward()
