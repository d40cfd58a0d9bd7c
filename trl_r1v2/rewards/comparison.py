# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Is a short answer right? Equal texts, choices, words, numbers with units, and mathematics.

Pure; about a tenth of a millisecond a pair, a few where the mathematics is new, and never much more: nothing is
interrupted, so a verdict does not depend on the load of the machine. Does not cover where an answer is found
(`answers.py`), conversion of units (`1 m` is not `100 cm` here), judging of free prose.
"""

import enum
import functools
import re
from typing import NamedTuple

from .answers import Answer
from .declining import declines
from .equality import same
from .expressions import Node, Unreadable, read
from .notation import normalised, plain
from .numeric import Undefined, same_value
from .quantities import MATH_WORDS, Quantity, Unit, read_quantity, split_unit


# A gold of more words than this is prose: no rule can verify it. Ours.
MAX_GOLD_WORDS = 8

_YES_NO = frozenset(("yes", "no", "true", "false"))
# The first word of a sentence, unless the other one is offered as well ("yes or no", "Yes, No"), or it is a term.
_OR = r"(?![\w'-])(?!\W*(?:(?:and|or)\W+)?"
_YES_NO_RE = re.compile(
    rf"\W*(?:(?:yes|true(?!\s+(?:posi|nega)tive)){_OR}(?:no|false)\b)"
    rf"|(?:no|false(?!\s+(?:posi|nega)tive)){_OR}(?:yes|true)\b))",
    re.IGNORECASE,
)
_WORDS_RE = re.compile(
    r"""[\s("']*[^\W\d_]+(?:(?:['-]|[\s,.;"()][\s,.;"'()]*|'[\s,.;][\s,.;"'()]*)[^\W\d_]+)*(?:[\s,.;"')!?])*"""
)
# What a sentence says before its answer: "The answer is", "I choose", "It is".
_LEAD_RE = re.compile(
    r"(?:(?:so|thus|therefore|hence|then|and|clearly|finally),?\s+)?"
    r"(?:(?:i|we)\s+(?:(?:would|will|'d|'ll)\s+)?(?:choose|chose|pick"
    r"|select|think|believe|get|got|obtain|find|found|conclude|say|answer)\b(?:\s+that)?"
    r"|(?:the\s+|my\s+|our\s+)?(?:(?:final|correct|right|best)\s+)*(?:answer|result|solution|option|choice|value)\s*"
    r"(?:is|are|=|:|would be|should be|must be)|it(?:'s|\s+is|\s+equals|\s+would be)"
    r"|(?:this|that|there)\s+(?:is|are)|they are)(?!\w)[\s:]*",
    re.IGNORECASE,
)
_CHINESE_LEAD_RE = re.compile(
    r"(?:(?:所以|因此|故|综上)[,\s]*)?(?:(?:正确|最终)?(?:答案|结果)?(?:选项?|应选|故选|答案|结果|答)\s*[是为:]*|我?选择?)\s*[::]?\s*"
)
_STATED_RE = re.compile(r"[^=]*\b(?:is|are|equals)\s+(?!not\b|no\b)(.*)", re.IGNORECASE)

_ALONE_RE = re.compile(r"\(?([A-Ja-j])\)?[.):]?")
_LEADING_RE = re.compile(
    r"(?:\(([A-J])\)|([A-J])(?:[.)]|:(?=\s)|\s+-(?=\s+\S{3}|\s+\S+\s)|(?=\s*\()))\s*(\S.*)", re.DOTALL
)
# What follows "because" is about the other letters; "option B is correct".
_REASONED_RE = re.compile(
    r"(?:[Oo]ption\s+)?\(?([A-J])\)?,?\s+(?:(?:because|since)\b.*|(?:\w+\s+)?not\s+[A-J]\W*)", re.DOTALL
)
_CALLED_RE = re.compile(
    r"(?:[A-Za-z]+,?\s+)?(?:[Tt]he\s+)?(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+)?"
    r"\(?([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right)"
    r"(?:\s+(?:option|choice|answer|one))?\W*(?:(?:because|since)\b.*)?",
    re.DOTALL,
)
_NAMED_RE = re.compile(
    r"(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s*(?:is|:)?\s*\(?([A-J])\)?(?![\w])(.*)",
    re.IGNORECASE | re.DOTALL,
)
_SEVERAL_RE = re.compile(r"\(?[A-J]\)?(?:(?:\s*(?:,|;|&|\band\b|和)\s*)*\(?[A-J]\)?)+")
# Behind a letter: another one joined to it or marked as a choice, or a verdict on the letter itself ("is too short").
_JOINED_RE = re.compile(r"[^\w,;/&+]*(?:[,;/&+]|(?:and|or)\b|或|和)(?:\W|(?:and|or|option|choice)\b)*[A-J](?![\w'])")
_MARKED_RE = re.compile(r"(?<!\w)\(([A-J])\)|(?<![\w(])([A-J])[.):](?=\s|$)|\b[Oo]ption\s+([A-J])\b")
_REJECTED_RE = re.compile(
    r"\W*(?:(?:is|was|seems?|looks|does|do|has|would|could|should|must|may|can|will)"
    r"(?:\s.*?\b(?:not|no|never|wrong|incorrect|false|too|ruled|eliminated|excluded|impossible|rejected)|n't)"
    r"|can(?:no|')t\s+be\s+(?:right|correct|true|the|it))\b"
)

# The last number of a sentence, unless it is what is denied or named beside.
_LAST_NUMBER_RE = re.compile(
    r".*(?<![\w.^/])(?P<number>[+-]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?!\d|(?:st|nd|rd|th)\b)(?:\s*%)?).*", re.DOTALL
)
_DENIED_RE = re.compile(
    r"(?:\bnot|n't(?:\s+\w+)?|\bor|\bthan|\bof|\bexcept|\babout|\b(?:step|case|question|part|figure|equation)\s*)\W*$",
    re.IGNORECASE,
)
_JOIN_RE = re.compile(r"(\s*(?:,(?!\d{3}(?!\d))|;|\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b|和|或)\s*)")
_PLAIN_WORD_RE = re.compile(r"(?<![\\A-Za-z{_])[A-Za-z']+(?![A-Za-z}])")
# Two words in a row that are no mathematics, or a verb.
_PROSE_RE = re.compile(
    rf"(?<![\\A-Za-z{{_])(?!(?:and|or|{'|'.join(MATH_WORDS)})\b)[A-Za-z']{{2,}}[\s,]+"
    rf"(?!(?:and|or|{'|'.join(MATH_WORDS)})\b)[A-Za-z']{{2,}}(?![A-Za-z}}])"
)
_VERB_RE = re.compile(
    r"(?<![\\A-Za-z{_])(?:is|are|was|equals|not|cannot|can't|isn't|would|has|have|there)(?![A-Za-z}])", re.IGNORECASE
)
_NAME_RE = re.compile(r"\s*(\\?[A-Za-z]+|[A-Za-z]_\{?\w+\}?)\s*(?:=|\\approx(?![A-Za-z])|≈)\s*(?=\S)")


class Verdict(enum.Enum):
    """Outcome of a comparison."""

    RIGHT = "right"
    WRONG = "wrong"
    UNVERIFIABLE = "unverifiable"  # the gold answer is empty or prose
    GOLD_UNREAD = "gold_unread"  # the gold answer is mathematics that is not read to its end
    ANSWER_UNREAD = "answer_unread"  # the answer is


def choice_letter(text: str) -> str | None:
    """
    Letter A-J that an answer chooses: `B`, `(B)`, `B.`, `B) text`, `option B`, `选B`; `None` if it chooses none,
    several ("B, C") or rejects the letter ("(B) is too short").
    """
    text = plain(normalised(text)).replace("**", "")
    text = _CHINESE_LEAD_RE.sub("", text, count=1) if re.search("[选答]", text) else text
    alone = _ALONE_RE.fullmatch(text) or _REASONED_RE.fullmatch(text) or _CALLED_RE.fullmatch(text)
    if alone:
        return alone.group(1).upper()
    leading, named = _LEADING_RE.fullmatch(text), _NAMED_RE.fullmatch(text)
    if leading:
        letter, rest = leading.group(1) or leading.group(2), leading.group(3)
    elif named and (named.group(1).isupper() or not named.group(2).strip(" .")):
        letter, rest = named.group(1).upper(), named.group(2)
    else:
        return None
    others = {next(filter(None, groups)) for groups in _MARKED_RE.findall(rest)} - {letter}
    return None if others or _JOINED_RE.match(rest) or _REJECTED_RE.match(rest) else letter


def is_number(text: str) -> bool:
    """Whether a text is one plain number with at most a unit."""
    return read_quantity(plain(normalised(text))) is not None


@functools.lru_cache(maxsize=8192)
def compare(answer: Answer, gold: str) -> Verdict:
    """
    Compare an answer with the gold, as [`~trl_r1v2.rewards.answers.gold_text`] gives it: equal texts (looks and white
    space removed), then multiple-choice letters, words (case-blind), numbers with or without units, mathematics. Both
    are read to their ends or not at all.
    """
    given, wanted = normalised(answer.text), normalised(gold)
    words = _words(plain(wanted))
    if not wanted or (len(wanted.split()) > MAX_GOLD_WORDS and words and len(words) > MAX_GOLD_WORDS // 2):
        return Verdict.UNVERIFIABLE
    given = _without_lead(given)
    if _squeezed(given) == _squeezed(wanted):
        return Verdict.RIGHT
    verdict = _compare_choices(plain(given), plain(wanted))
    if verdict is None and words and _is_word_gold(plain(wanted), words):
        verdict = _compare_words(plain(given), words)
    return verdict or _compare_mathematics(given, wanted, answer.anchored)


def _squeezed(text: str) -> str:
    # the blank of `1 1/2` counts, that of `1 000` does not
    return re.sub(r"(?<!\d) | (?!\d)| (?=\d{3}(?!\d))", "", plain(text))


def _without_lead(text: str) -> str:
    """What a sentence says after "The answer is", "I choose", "答案是"."""
    for lead in (_LEAD_RE, _CHINESE_LEAD_RE, _LEAD_RE):  # "So the answer is: I choose B"
        match = lead.match(text)
        if match and 0 < match.end() < len(text):
            text = normalised(text[match.end() :])
    return text


# ---- Choices and words ----


def _compare_choices(given: str, wanted: str) -> Verdict | None:
    """Verdict where the gold is a choice (upper-case letters A-J, alone or before a text), else `None`."""
    alone, leading = _ALONE_RE.fullmatch(wanted), _LEADING_RE.fullmatch(wanted)
    several = _SEVERAL_RE.fullmatch(wanted)
    if several and sorted(set(letters := re.findall("[A-J]", wanted))) == letters:
        given = given if _SEVERAL_RE.fullmatch(given) else re.sub(r"(?i)^(?:options?|choices?)\s+", "", given)
        return _right(bool(_SEVERAL_RE.fullmatch(given)) and sorted(re.findall("[A-J]", given)) == letters)
    if not ((alone and alone.group(1).isupper()) or leading):
        return None
    letter = alone.group(1) if alone else leading.group(1) or leading.group(2)
    chosen = choice_letter(given)
    if chosen is not None:
        return _right(chosen == letter)
    return _right(leading is not None and given.casefold() == leading.group(3).casefold())


def _right(is_right: bool) -> Verdict:
    return Verdict.RIGHT if is_right else Verdict.WRONG


def _words(text: str) -> list[str] | None:
    """
    Lower-case words of a text; articles dropped. `None` where there is anything else in it, as a sign or a root, that
    changes what the letters mean.
    """
    if _WORDS_RE.fullmatch(text) is None:
        return None
    words = [word for word in re.findall(r"[^\W\d_]+", text.casefold()) if word not in ("a", "an", "the")]
    return words or None


def _is_word_gold(text: str, words: list[str]) -> bool:
    """Whether words are an answer in words rather than letters of algebra (`x`, `ab`, `sin x`, `mgR`, `mgh`)."""
    if " ".join(words) in _YES_NO or re.search("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]", text):
        return True
    is_product = re.fullmatch(r"(?=.*[a-z])(?=.+[A-Z])[A-Za-z]{3,4}|[bcdfghj-np-tv-z]{3,4}", text)
    return any(len(word) > 2 for word in words) and not MATH_WORDS.intersection(words) and not is_product


def _compare_words(given: str, wanted: list[str]) -> Verdict:
    given_words = _words(given) or []
    leads = len(wanted) == 1 and _YES_NO_RE.match(given)
    if given_words == wanted:
        return Verdict.RIGHT
    if leads and re.sub(r"\W", "", leads.group(0)).casefold() == wanted[0] and not declines(given):
        return Verdict.RIGHT
    if wanted[0] == "no":  # "no solutions" is "no solution"
        return _right([word.removesuffix("s") for word in given_words] == [word.removesuffix("s") for word in wanted])
    return Verdict.WRONG


# ---- Numbers and mathematics ----


class _Measured(NamedTuple):
    """Mathematics without its units, each item's unit, and the text as it was."""

    text: str
    units: tuple[Unit, ...]
    whole: str

    @property
    def names(self) -> set[str]:
        return {unit.name for unit in self.units if unit.name}


def _compare_mathematics(given: str, wanted: str, anchored: bool) -> Verdict:
    if re.fullmatch(r"-?\d+\.\d+", wanted):
        given = re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", given)  # a decimal comma
    gold = _measured(wanted)
    try:
        tree = read(gold.text)
    except Unreadable:
        return Verdict.GOLD_UNREAD
    if not given:
        return Verdict.WRONG
    answer = _measured(given)
    if _is_prose(answer.text):
        value = _value_of_sentence(given, anchored)
        if value is None:
            return Verdict.WRONG
        answer = _measured(value)
    try:
        return _right(_same_measured(gold, answer))
    except Unreadable:
        return Verdict.ANSWER_UNREAD
    except Undefined:
        return Verdict.WRONG if _is_defined(tree) else Verdict.GOLD_UNREAD


def _measured(text: str) -> _Measured:
    parts = _JOIN_RE.split(text)
    quantities = [_quantity(part) for part in parts[::2]]
    parts[::2] = [quantity.text for quantity in quantities]
    return _Measured("".join(parts), tuple(quantity.unit for quantity in quantities), text)


def _quantity(text: str) -> Quantity:
    r"""`12 cm` and `x = 12 cm`, `9\pi\text{ cm}^2`; a text without a unit as it is."""
    if number := read_quantity(plain(text)):
        return number
    name = _NAME_RE.match(text)
    number = read_quantity(plain(text[name.end() :])) if name else None
    return number._replace(text=f"{name[0]} {number.text}") if number else split_unit(text)


def _same_measured(gold: _Measured, answer: _Measured) -> bool:
    if gold.names and answer.names:
        return gold.names == answer.names and same(read(gold.text), read(answer.text))
    is_clear = all(unit.is_clear for unit in gold.units + answer.units)  # `12 T` may be algebra
    if is_clear and same(read(gold.text), read(answer.text)):
        return True
    # 50% is a half, and 90° half of pi
    may_be_values = not is_clear or gold.names | answer.names in ({"%"}, {"°"})
    return may_be_values and same(read(gold.whole), read(answer.whole))


def _is_defined(tree: Node) -> bool:
    try:
        return same_value(tree, tree)
    except Unreadable:  # a list or a relation
        return True
    except Undefined:
        return False


def _is_prose(text: str) -> bool:
    """Whether there is a sentence around the mathematics, or no mathematics."""
    words = set(map(str.casefold, _PLAIN_WORD_RE.findall(text))) - MATH_WORDS - {"and", "or"}
    if " " in text and any(len(word) > 1 for word in words) and not re.search(r"[\d\\^=<>≤≥+*/√π∞]", text):
        return True
    return bool(_VERB_RE.search(text) or _PROSE_RE.search(text))


def _value_of_sentence(text: str, anchored: bool) -> str | None:
    """
    What a sentence says: "The area is 12 cm" 12 cm; of an unmarked last line also its last number, unless that is
    denied.
    """
    stated = _STATED_RE.fullmatch(text)
    if stated and not re.search(r"\bor\b", text) and not _is_prose(value := normalised(stated[1])):
        return value
    if anchored or re.search(r"[\\^{}=*/]", text):
        return None
    last = _LAST_NUMBER_RE.fullmatch(text)
    if last is None or _DENIED_RE.search(text[: last.start("number")]):
        return None
    return last["number"]
