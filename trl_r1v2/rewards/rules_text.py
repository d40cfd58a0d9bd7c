# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Shaping rewards computed from the text of a completion: steps, repetition, length, language, think-answer consistency.

Scope: small callables with TRL's reward signature. R1V2's reward (eq. 7) contains none of them; each names its own
source. Does not cover: correctness and format (`rules.py`), repetition and soft overlong punishment, which are TRL's
and which the recipe types `repetition` and `soft_overlong` of [`HybridReward`] build.
"""

import math
import re
import unicodedata
from dataclasses import dataclass

from .answers import Answer, completion_text, final_answer, split_reasoning
from .comparison import Verdict, compare, is_number
from .rules import AccuracyReward, think_is_open


# A completion may repeat any part of a pattern for ever: no pattern may look from each of its starts to the end of the
# text. So white space ends with the line, and what is opened again begins anew.
_STEP_RE = re.compile(
    r"^[^\S\n]*(?:[-*]\s|(?:\#{1,6}[^\S\n]+)?[*_]{0,3}(?:step[^\S\n]+\d+\b|\d+[.)]\s"
    r"|(?:first|second|third|next|then|finally|lastly)(?:ly)?[*_]{0,3}[^\S\n]*,))",
    re.IGNORECASE | re.MULTILINE,
)
_MATH_RE = re.compile(
    r"\$\$.*?\$\$|\$[^$\n]*\$|\\\[(?:(?!\\\[).)*?\\\]|\\\((?:(?!\\\().)*?\\\)|```.*?```|\\[A-Za-z]+|</?[a-z_]+>",
    re.DOTALL,
)
_STATES_RE = re.compile(r"[=≈]|\b(?:is|are|so|thus|hence|therefore|get)\b")

# First word of a letter's Unicode name → languages written with it.
_SCRIPTS = dict.fromkeys(("en", "fr", "de", "es"), ("LATIN",)) | {
    "zh": ("CJK",), "ja": ("CJK", "HIRAGANA", "KATAKANA"), "ko": ("HANGUL",), "ru": ("CYRILLIC",), "ar": ("ARABIC",),
    "hi": ("DEVANAGARI",),
}  # fmt: skip
# Kana and Chinese signs are written without spaces: each counts as one word.
_SIGNS = "\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD_RE = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+")


class StepCompletenessReward:
    r"""
    Reward function: `min(1, steps / target_steps)`, where steps are lines that open with "Step n", "1.", "-", "First,"
    and the like, also in bold or as a heading.

    Source: Open-R1's `reasoning_steps_reward`, which also takes three steps as complete; the markers counted here are
    ours. A marker counts at the start of a line only, and in the reasoning only where there is one.

    Args:
        target_steps (`int`, *optional*, defaults to `3`): Steps from which the reasoning is complete.
        name (`str`, *optional*, defaults to `"step_completeness_reward"`): Name under which TRL logs it.
    """

    def __init__(self, target_steps: int = 3, name: str = "step_completeness_reward"):
        if target_steps < 1:
            raise ValueError(f"target_steps is {target_steps}; it must be at least 1.")
        self.target_steps = target_steps
        self.__name__ = name

    def __call__(self, completions, **kwargs) -> list[float]:
        rewards = []
        for completion in completions:
            reasoning, answer = split_reasoning(completion_text(completion))
            text = answer if reasoning is None else reasoning
            rewards.append(min(1.0, len(_STEP_RE.findall(text)) / self.target_steps))
        return rewards


@dataclass(eq=False)
class CosineLengthReward:
    r"""
    Reward function: correctness scaled by length along a cosine, so that right answers are worth more when short and
    wrong ones cost less when long.

    `r = v_min + (v_max − v_min)(1 + cos(π · min(1, |y| / max_length))) / 2` with `(v_min, v_max)` = `right` for a
    right answer and the swapped `wrong` for a wrong one; |y| in tokens. Source: Demystifying Long Chain-of-Thought
    Reasoning (arXiv 2502.03373), appendix C.1; the default bounds are TRL's. `None` where correctness is unknown. It
    differs from `trl.rewards.get_cosine_scaled_reward` in judging correctness with [`AccuracyReward`].

    Args:
        max_length (`int`): Length in tokens at which the schedule ends.
        right (`tuple[float, float]`, *optional*, defaults to `(0.5, 1.0)`): Reward of a right answer at `max_length`
            and at length 0.
        wrong (`tuple[float, float]`, *optional*, defaults to `(-1.0, -0.5)`): Reward of a wrong answer at length 0 and
            at `max_length`.
        solution_column (`str`, *optional*, defaults to `"solution"`), think_open (`bool`, *optional*): As for
            [`AccuracyReward`], which judges correctness.
        name (`str`, *optional*, defaults to `"cosine_length_reward"`): Name under which TRL logs it.
    """

    max_length: int
    right: tuple[float, float] = (0.5, 1.0)
    wrong: tuple[float, float] = (-1.0, -0.5)
    solution_column: str = "solution"
    think_open: bool | None = None
    name: str = "cosine_length_reward"

    def __post_init__(self):
        self.__name__ = self.name
        if self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}; it must be at least 1 token.")
        for label, bounds in (("right", self.right), ("wrong", self.wrong)):
            is_pair = isinstance(bounds, list | tuple) and len(bounds) == 2
            if not (is_pair and all(isinstance(bound, int | float) for bound in bounds)):
                raise ValueError(f"{label} is {bounds!r}; it must be two numbers.")
        self.accuracy = AccuracyReward(self.solution_column, self.think_open)
        self.required_columns = self.accuracy.required_columns

    def __call__(
        self, completions, completion_ids, prompts=None, log_extra=None, log_metric=None, **kwargs
    ) -> list[float | None]:
        # Without the loggers: an accuracy reward beside this one already fills their columns.
        rights = self.accuracy(completions=completions, prompts=prompts, **kwargs)
        rewards = []
        for correct, ids in zip(rights, completion_ids, strict=True):
            if correct is None:
                rewards.append(None)
                continue
            at_end, at_start = self.right if correct else reversed(self.wrong)
            cosine = math.cos(math.pi * min(1.0, len(ids) / self.max_length))
            rewards.append(at_end + 0.5 * (at_start - at_end) * (1.0 + cosine))
        return rewards


class LanguageConsistencyReward:
    r"""
    Reward function: share of the words of the reasoning that are written in the script of the target language.

    Source: DeepSeek-R1 (arXiv 2501.12948), "the proportion of target language words in the CoT". Telling languages by
    their script is ours: it sees Chinese mixed into English, not French mixed into English. Formulas, code and LaTeX
    commands do not count; `None` where no word is left.

    Args:
        language (`str`, *optional*, defaults to `"en"`): Target: one of `ar`, `de`, `en`, `es`, `fr`, `hi`, `ja`,
            `ko`, `ru`, `zh`.
        name (`str`, *optional*, defaults to `"language_consistency_reward"`): Name under which TRL logs it.
    """

    def __init__(self, language: str = "en", name: str = "language_consistency_reward"):
        if language not in _SCRIPTS:
            raise ValueError(f"language is {language!r}; it must be one of {sorted(_SCRIPTS)}.")
        self.language = language
        self.__name__ = name

    def __call__(self, completions, **kwargs) -> list[float | None]:
        return [self._share(completion_text(completion)) for completion in completions]

    def _share(self, text: str) -> float | None:
        reasoning, answer = split_reasoning(text)
        words = _WORD_RE.findall(_MATH_RE.sub(" ", answer if reasoning is None else reasoning))
        letters = [next(filter(str.isalpha, word)) for word in words if any(map(str.isalpha, word))]
        scripts = [re.split("[ -]", unicodedata.name(letter, "UNKNOWN"))[0] for letter in letters]
        return sum(script in _SCRIPTS[self.language] for script in scripts) / len(scripts) if scripts else None


class ThinkAnswerConsistencyReward:
    r"""
    Reward function: 1.0 if what the reasoning ends with equals the answer given after it, else 0.0. Ours.

    The end of the reasoning is read as an answer is: its last box or "the answer is", else its last sentence; equality
    is that of accuracy. `None` where there is no reasoning or no answer, where a pair is not read to its end, and
    where an unmarked last sentence is unlike the answer, unless both state a number.

    Args:
        think_open (`bool`, *optional*): Whether the prompt opens `<think>`; `None` looks at `prompts`.
        name (`str`, *optional*, defaults to `"think_answer_consistency_reward"`): Name under which TRL logs it.
    """

    def __init__(self, think_open: bool | None = None, name: str = "think_answer_consistency_reward"):
        self.think_open = think_open
        self.__name__ = name

    def __call__(self, completions, prompts=None, **kwargs) -> list[float | None]:
        opened = think_is_open(prompts, len(completions), self.think_open)
        return [
            self._agreement(completion_text(completion), is_open)
            for completion, is_open in zip(completions, opened, strict=True)
        ]

    @staticmethod
    def _agreement(text: str, is_open: bool) -> float | None:
        said, answer = final_answer(split_reasoning(text, is_open)[0] or ""), final_answer(text, is_open)
        if said is None or answer is None:
            return None
        number = _STATES_RE.split(said.text)[-1]
        are_numbers = is_number(number) and is_number(answer.text)
        verdict = compare(Answer(number, anchored=True) if are_numbers else said, answer.text)
        if verdict is Verdict.WRONG and not (said.anchored or are_numbers):
            return None
        return {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0}.get(verdict)
