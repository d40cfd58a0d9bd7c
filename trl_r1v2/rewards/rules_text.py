# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Shaping rewards computed from the text of a completion: steps, repetition, length, language, think-answer consistency.

Scope: small callables with TRL's reward signature. R1V2's reward (eq. 7) contains none of them; each names its own
source. Repetition and soft overlong punishment over token ids are TRL's (`trl.rewards.get_repetition_penalty_reward`,
`get_soft_overlong_punishment`); the recipe types `repetition` and `soft_overlong` of [`HybridReward`] build those.
Does not cover: correctness and format (`rules.py`).
"""

import math
import re
import unicodedata

from .answers import completion_text, final_answer, last_boxed, split_reasoning
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
# A formula with a digit (`\frac{1}{2}`, `-25\pi`, `7cm`), or a number by itself, also with a unit's power (`5 cm^2`).
_RUN = r"(?:(?!\\[()\[\]])[^\s=$,;:])"
_VALUE_RE = re.compile(
    rf"(?:(?<![^\s=$,;:])|(?<=\\[(\[]))(?={_RUN}*(?:\\[A-Za-z]|[\^_{{]|[A-Za-z]\d|\d[A-Za-z]))(?={_RUN}*\d){_RUN}+"
    r"|(?<![\w.\\])[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s{0,3}/\s{0,3}\d+)?"
    r"(?: ?[A-Za-z]{1,20}\^\{?\d\}?)?(?![\w^{]|\\[A-Za-z])"
)
# Before the first character of a value that is but a part of an expression: `10 - 5`, `2 \sqrt{3}`.
_OPERAND_RE = re.compile(r"(?:[\w})]\s?[-+/]|\\(?:cdot|times|div|pm))\s?.\Z|[\d})]\s?\\\Z")

# First word of a letter's Unicode name → languages written with it.
_SCRIPTS = {
    "en": ("LATIN",),
    "fr": ("LATIN",),
    "de": ("LATIN",),
    "es": ("LATIN",),
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "ar": ("ARABIC",),
    "hi": ("DEVANAGARI",),
}
_SYLLABIC = frozenset(("CJK", "HIRAGANA", "KATAKANA"))  # written without spaces: each sign counts as one word


class StepCompletenessReward:
    r"""
    Reward function: `min(1, steps / target_steps)`, where steps are lines that open with "Step n", "1.", "-", "First,"
    and the like, also in bold or as a heading.

    Source: Open-R1's `reasoning_steps_reward`, which also takes three steps as complete; the markers counted here are
    ours. A marker counts at the start of a line only, and in the reasoning only where there is one.

    Args:
        target_steps (`int`, *optional*, defaults to `3`):
            Steps from which the reasoning is complete.
        name (`str`, *optional*, defaults to `"step_completeness_reward"`):
            Name under which TRL logs it.
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


class WordRepetitionReward:
    r"""
    Reward function: `max_penalty · (1 − distinct n-grams / n-grams)` over the words of the completion.

    Source of the formula: Demystifying Long Chain-of-Thought Reasoning (arXiv 2502.03373), appendix C.2, where the
    n-grams are tokens; words make the value independent of the tokenizer and computable without token ids. A sign of a
    script without spaces counts as a word.

    Args:
        ngram_size (`int`, *optional*, defaults to `3`):
            Words in an n-gram. A completion of fewer words gets 0.
        max_penalty (`float`, *optional*, defaults to `-1.0`):
            Limit for a text that repeats one n-gram for ever; not positive.
        name (`str`, *optional*, defaults to `"word_repetition_reward"`):
            Name under which TRL logs it.
    """

    def __init__(self, ngram_size: int = 3, max_penalty: float = -1.0, name: str = "word_repetition_reward"):
        if ngram_size < 1:
            raise ValueError(f"ngram_size is {ngram_size}; it must be at least 1.")
        if max_penalty > 0:
            raise ValueError(f"max_penalty is {max_penalty}; a penalty must not be positive.")
        self.ngram_size = ngram_size
        self.max_penalty = max_penalty
        self.__name__ = name

    def __call__(self, completions, **kwargs) -> list[float]:
        return [self._penalty(_split_words(completion_text(completion).casefold())) for completion in completions]

    def _penalty(self, words: list[str]) -> float:
        num_ngrams = len(words) - self.ngram_size + 1
        if num_ngrams < 1:
            return 0.0
        distinct = {tuple(words[start : start + self.ngram_size]) for start in range(num_ngrams)}
        return self.max_penalty * (1 - len(distinct) / num_ngrams)


class CosineLengthReward:
    r"""
    Reward function: correctness scaled by length along a cosine, so that right answers are worth more when short and
    wrong ones cost less when long.

    `r = v_min + (v_max − v_min)(1 + cos(π · min(1, |y| / max_length))) / 2` with `(v_min, v_max)` = `right` for a
    right answer and the swapped `wrong` for a wrong one; |y| in tokens. Source: Demystifying Long Chain-of-Thought
    Reasoning (arXiv 2502.03373), appendix C.1; the default bounds are TRL's. `None` where correctness is unknown. It
    differs from `trl.rewards.get_cosine_scaled_reward` in judging correctness with [`AccuracyReward`].

    Args:
        max_length (`int`):
            Length in tokens at which the schedule ends.
        right (`tuple[float, float]`, *optional*, defaults to `(0.5, 1.0)`):
            Reward of a right answer at `max_length` and at length 0.
        wrong (`tuple[float, float]`, *optional*, defaults to `(-1.0, -0.5)`):
            Reward of a wrong answer at length 0 and at `max_length`.
        accuracy ([`AccuracyReward`], *optional*):
            Judge of correctness. In a recipe its options (`solution_column`, `think_open`) are options of
            `cosine_length`.
        name (`str`, *optional*, defaults to `"cosine_length_reward"`):
            Name under which TRL logs it.
    """

    def __init__(
        self,
        max_length: int,
        right: tuple[float, float] = (0.5, 1.0),
        wrong: tuple[float, float] = (-1.0, -0.5),
        accuracy: AccuracyReward | None = None,
        name: str = "cosine_length_reward",
    ):
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}; it must be at least 1 token.")
        for label, bounds in (("right", right), ("wrong", wrong)):
            is_pair = isinstance(bounds, list | tuple) and len(bounds) == 2
            if not (is_pair and all(isinstance(bound, int | float) for bound in bounds)):
                raise ValueError(f"{label} is {bounds!r}; it must be two numbers.")
        if not (accuracy is None or callable(accuracy)):
            raise ValueError(f"accuracy is {accuracy!r}; it must be a reward function such as AccuracyReward().")
        self.max_length = max_length
        self.right = right
        self.wrong = wrong
        self.accuracy = accuracy or AccuracyReward()
        self.__name__ = name

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Dataset columns without which the reward cannot be computed."""
        return self.accuracy.required_columns

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


def _script(char: str) -> str:
    return unicodedata.name(char, "UNKNOWN").split(" ")[0].split("-")[0]


def _split_words(text: str) -> list[str]:
    """Words of a text; each sign of a script without spaces is one."""
    words = []
    for run in re.findall(r"\w+", text):
        current = ""
        for char in run:
            if char.isalpha() and _script(char) in _SYLLABIC:
                words.extend([current, char] if current else [char])
                current = ""
            else:
                current += char
        if current:
            words.append(current)
    return words


class LanguageConsistencyReward:
    r"""
    Reward function: share of the words of the reasoning that are written in the script of the target language.

    Source: DeepSeek-R1 (arXiv 2501.12948), "the proportion of target language words in the CoT". Telling languages by
    their script is ours: it sees Chinese mixed into English, not French mixed into English. Formulas, code and LaTeX
    commands do not count; `None` where no word is left.

    Args:
        language (`str`, *optional*, defaults to `"en"`):
            Target: one of `ar`, `de`, `en`, `es`, `fr`, `hi`, `ja`, `ko`, `ru`, `zh`.
        name (`str`, *optional*, defaults to `"language_consistency_reward"`):
            Name under which TRL logs it.
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
        words = _split_words(_MATH_RE.sub(" ", answer if reasoning is None else reasoning))
        first_letters = [
            next(char for char in word if char.isalpha()) for word in words if any(map(str.isalpha, word))
        ]
        if not first_letters:
            return None
        return sum(_script(letter) in _SCRIPTS[self.language] for letter in first_letters) / len(first_letters)


def _last_value(text: str) -> str | None:
    """The last value of a text; `None` if there is none, or if it is but a part of an expression."""
    matches = list(_VALUE_RE.finditer(text))
    if not matches or _OPERAND_RE.search(text[max(0, matches[-1].start() - 10) : matches[-1].start() + 1]):
        return None
    return matches[-1].group(0).strip("*`").rstrip(".!?*`")


class ThinkAnswerConsistencyReward:
    r"""
    Reward function: 1.0 if the last value stated in the reasoning equals the answer given after it, else 0.0. Ours.

    The last value is the last `\boxed{}` of the reasoning, else its last number, or the last formula with a digit in
    it (`\frac{1}{2}`, `25\pi`), unless that is an operand (`10 - 5`). Equality is that of
    [`~trl_r1v2.rewards.comparison.compare`]. `None` where there is no reasoning, no value in it, no answer, an answer
    in words while the reasoning boxes nothing, or a pair that is not read to its end.

    Args:
        think_open (`bool`, *optional*):
            Whether the prompt opens `<think>`; `None` looks at `prompts`.
        name (`str`, *optional*, defaults to `"think_answer_consistency_reward"`):
            Name under which TRL logs it.
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
        reasoning, _ = split_reasoning(text, is_open)
        answer = final_answer(text, is_open)
        if not reasoning or answer is None:
            return None
        boxed = last_boxed(reasoning)
        value = boxed or _last_value(reasoning)
        if value is None or (boxed is None and not re.search(r"\d", answer.text)):
            return None  # nothing stated, or an answer in words, which a number neither supports nor contradicts
        verdict = compare(answer, value)
        if verdict is Verdict.WRONG and boxed is None and not (is_number(value) and is_number(answer.text)):
            return None  # only of numbers is it clear that they are not parts of an expression
        return {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0}.get(verdict)
