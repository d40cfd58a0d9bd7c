# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Factual consistency with the image: what a response says is shown, against what the data says is shown.

R1V2 names such a rule without describing it. Objects are counted as CHAIR (arXiv 1809.02156) does it, yes/no questions
about one as POPE (arXiv 2305.10355) asks them; reading of denials, counts and numbers is ours. Scope: words against
annotations, English. Does not cover: attributes, relations, and what only looking can tell.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Number
from pathlib import Path

from .answers import completion_text, final_answer, message_text


_IRREGULAR = {"man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice",
              "goose": "geese", "foot": "feet", "tooth": "teeth", "knife": "knives", "shelf": "shelves"}  # fmt: skip
_NUMBERS = {word: value for value, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve".split())}  # fmt: skip
_NUMBER = rf"(?:\d+(?:\.\d+)?|{'|'.join(_NUMBERS)})\b(?!\.\d)"
# "no dogs, cats or birds", "I do not see a dog", "without any dog": a denial reaches over three words of its clause.
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:no(?!,| (?:doubt|question|longer|one)\b)|not(?! only)|cannot|without|neither|nor|never|lacks?)\b"
    r"|n['’]t\b)(?:[\s,]+[\w'’-]+){0,3}[\s,]*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"\s+(?:is|are|was|were)(?:(?:\s+not|n['’]t|\s+nowhere)\b\s*(?:to be seen|visible|shown|present|there|in\b|[.,]|$)"
    r"|\s+(?:absent|missing)\b)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[.;:!?\n]|\bbut\b|,\s*(?=(?:an?|the|it|there|only|just|I|we)\b)", re.IGNORECASE)
_CLAIM = r"\b(?:(?:I|we)(?: can| also| clearly)? (?:see|read)|looks? like|shows?|there (?:is|are))"
_SEEN = re.compile(rf"{_CLAIM}(?: also)?(?: (?:an?|the|some|{_NUMBER}))?\s*$", re.IGNORECASE)
_READ = re.compile(
    rf"(?:{_CLAIM}|\b(?:digits|numbers)(?: shown)? are)(?:(?: the)? (?:digits?|numbers?))?"
    rf"((?:,? ?\b(?:and )?(?:an? )?{_NUMBER}(?! (?:digit|number|image|picture)))+)",
    re.IGNORECASE,
)
_ASKS = re.compile(r"\b(?:is|are) there\b|\b(?:do|can) you see\b|\b(?:contain|show|depict|have)\b", re.IGNORECASE)
_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def _value(text: str) -> float:
    return float(_NUMBERS.get(text.lower(), text))


def read_numbers(response: str) -> list[float]:
    """
    The numbers that a response says it reads: behind "I see", "it shows", "looks like", "the digits are", … Operands
    and results are not readings, and what is denied ("not a 3") is none.
    """
    return [_value(number) for claim in _READ.finditer(response) for number in re.findall(_NUMBER, claim[1], re.I)]


class Vocabulary:
    """
    The objects that can be told, by the words for them.

    Of overlapping words the longest counts ("hot dog" is no dog), of words side by side the last ("baby elephant").
    Plurals count, words inside words ("cat" in "category") do not.

    Args:
        entries (`str`, or iterable of `str`): The lines, or the path of a file of lines such as `bicycle, bike`: the
            object's name, then its synonyms (CHAIR's `synonyms.txt` has this form).
    """

    def __init__(self, entries: str | Iterable[str]):
        lines = Path(entries).read_text(encoding="utf-8").splitlines() if isinstance(entries, str) else entries
        rows = [[word.strip().lower() for word in line.split(",") if word.strip()] for line in lines]
        self._name = {word: row[0] for row in rows for word in row}
        if not self._name:
            raise ValueError(f"The vocabulary {entries!r} names no object: give lines such as 'bicycle, bike'.")
        for word, name in list(self._name.items()):
            for plural in _plurals(word):
                self._name.setdefault(plural, name)
        words = sorted(self._name, key=len, reverse=True)
        choices = "|".join(re.escape(word).replace(r"\ ", r"[\s-]+") for word in words)
        self._words = re.compile(rf"(?<![\w-])(?:{choices})(?![\w-]| (?:{choices})(?![\w-]))", re.IGNORECASE)

    def mentions(self, text: str) -> list[tuple[str, re.Match]]:
        """The objects that a text names, in order, each with its place."""
        return [(self._name[re.sub(r"[\s-]+", " ", match[0].lower())], match) for match in self._words.finditer(text)]


def _plurals(word: str) -> list[str]:
    ending = "ies" if re.search(r"[^aeiou]y$", word) else "es" if re.search(r"(?:s|x|z|ch|sh)$", word) else "s"
    regular = word.removesuffix("y") + ending if ending == "ies" else word + ending
    return [regular] + [word.removesuffix(one) + many for one, many in _IRREGULAR.items() if word.endswith(one)]


@dataclass(eq=False)
class FactualConsistencyReward:
    r"""
    Reward function: the share of a response's statements about the image that its annotation supports; `1 − CHAIR_i`.

    With a `vocabulary`, statements are the objects that are named, reasoning included, unless they are denied ("there
    is no dog"); an object that the question names, only where it is said to be seen. Where the question asks whether
    one is there, the answer's yes or no is a statement, too. Where the annotation counts, so is a number before an
    object. Without a vocabulary, statements are the numbers of [`read_numbers`], each as often as it is shown.

    `None` for rows without image or annotation. What names nothing scores `if_silent`.

    Args:
        shown_column (`str`, *optional*, defaults to `"objects"`): Dataset column with what the images show: names or
            captions in a list, one text, or a mapping from names to counts, of which `None` is 0; without a vocabulary
            a list of numbers. An empty list says that nothing is shown, `None` that nothing is known.
        vocabulary (`str` or `list` of `str`, *optional*): As for [`Vocabulary`].
        absent_column (`str`, *optional*): Dataset column with names that are known not to be shown, as POPE's
            negatives. Only these are then unsupported, and objects that are in neither column are no statements.
        if_silent (`float`, *optional*, defaults to `0.0`): Score of a response that states nothing. CHAIR's is 1, for
            which a policy need only learn to say nothing.
        name (`str`, *optional*, defaults to `"factual_consistency_reward"`): Name under which TRL logs it.

    Example:
    ```python
    >>> reward = FactualConsistencyReward(vocabulary=["dog, puppy", "cat", "sofa, couch"])
    >>> reward(["Two puppies on a couch.", "A dog and a cat."], objects=[["dog", "sofa"], ["dog", "sofa"]])
    [1.0, 0.5]
    ```
    """

    shown_column: str = "objects"
    vocabulary: str | list | None = None
    absent_column: str | None = None
    if_silent: float = 0.0
    name: str = "factual_consistency_reward"

    def __post_init__(self):
        self.__name__ = self.name
        self.required_columns = tuple(filter(None, (self.shown_column, self.absent_column)))
        if self.absent_column is not None and self.vocabulary is None:
            raise ValueError("`absent_column` is for objects: give a `vocabulary`, too.")
        self._objects = None if self.vocabulary is None else Vocabulary(self.vocabulary)

    def __call__(self, completions, prompts=None, log_extra=None, log_metric=None, **columns) -> list[float | None]:
        missing = [column for column in self.required_columns if column not in columns]
        if missing:
            raise ValueError(
                f"{self.__name__} needs the dataset column {missing[0]!r}; the columns here are {sorted(columns)}. "
                "Rename the column, or set `shown_column` or `absent_column`."
            )
        num_rows = len(completions)
        absent = columns[self.absent_column] if self.absent_column else [None] * num_rows
        pictures = [columns[name] for name in ("images", "image") if name in columns]
        scores, found = [], []
        for row, (completion, shown) in enumerate(zip(completions, columns[self.shown_column], strict=True)):
            if shown is None or (pictures and not any(column[row] for column in pictures)):
                scores.append(None)
                found.append(None)
                continue
            prompt = "" if prompts is None else prompts[row]
            if not isinstance(prompt, str):
                prompt = " ".join(message_text(message["content"]) for message in prompt if message["role"] == "user")
            stated, false = self.statements(completion_text(completion), shown, prompt, absent[row])
            scores.append(1.0 - len(false) / len(stated) if stated else self.if_silent)
            found.append(", ".join(false))
        if log_extra is not None:
            log_extra(f"{self.__name__}/unsupported", found)
        if log_metric is not None and (known := [false for false in found if false is not None]):
            log_metric(f"{self.__name__}/hallucinated", sum(map(bool, known)) / len(known))
        return scores

    def unsupported(self, response: str, shown) -> list[str]:
        """The statements without support, without a look at the question: `monitor_claims_func`."""
        return [] if shown is None else self.statements(response, shown)[1]

    def named(self, response: str) -> list[str]:
        """All statements: `monitor_named_func`."""
        return self.statements(response, [])[0]

    def statements(self, response: str, shown, question: str = "", absent=None) -> tuple[list[str], list[str]]:
        """The statements of a response, and those of them that are not supported."""
        if self._objects is None:
            if any(not isinstance(value, Number) for value in shown):
                raise self._misfit(shown, "holds numbers: give a vocabulary for objects")
            stated = Counter(map(_plain, read_numbers(response)))
            return list(stated.elements()), list((stated - Counter(map(_plain, shown))).elements())
        counts = self._counts(shown)
        excluded = None if absent is None else set(self._counts(absent)) - set(counts)
        asked = {name for name, _ in self._objects.mentions(question)}
        stated, false = [], []

        def add(name: str, label: str, is_true: bool):
            if excluded is None or name in counts or name in excluded:
                stated.append(label)
                false.extend([] if is_true else [label])

        for name, match in self._objects.mentions(response):
            before = _CLAUSE.split(response[: match.start()])[-1]
            is_denied = _DENIED_BEFORE.search(before) or _DENIED_AFTER.match(response, match.end())
            if is_denied or (name in asked and not _SEEN.search(before)):
                continue
            number = re.search(rf"(?:^|\s)(?!one\b|1\b)({_NUMBER}) $", before, re.IGNORECASE)  # "one dog" of several
            exact = counts.get(name) if number else None
            label = name if exact is None else f"{_plain(_value(number[1]))} {name}"
            add(name, label, name in counts and (exact is None or exact == _value(number[1])))
        answer = final_answer(response)
        verdict = answer and _YES_NO.match(answer.text)
        if verdict and len(asked) == 1 and _ASKS.search(question):
            (name,), is_yes = asked, verdict[1].lower() == "yes"
            add(name, name if is_yes else f"no {name}", is_yes == (name in counts))
        return stated, false

    def _counts(self, shown) -> dict[str, int | None]:
        """The objects that an annotation names, with their number where it has one."""
        counts: dict[str, int | None] = {}
        for text in [shown] if isinstance(shown, str) else shown:
            if not isinstance(text, str):
                raise self._misfit(text, "names objects: give their names, or leave the vocabulary out")
            number = shown[text] if isinstance(shown, Mapping) else None
            for name, _ in self._objects.mentions(text) if number or not isinstance(shown, Mapping) else ():
                counts[name] = None if number is None else number + (counts.get(name) or 0)
        return counts

    def _misfit(self, value, remedy: str) -> ValueError:
        vocabulary = "with a" if self._objects else "without a"
        return ValueError(
            f"{self.__name__}: the column {self.shown_column!r} holds {value!r}; {vocabulary} vocabulary it {remedy}."
        )


def _plain(number: float) -> str:
    return f"{float(number):g}"
