# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Signals of hallucination, as pure functions of texts, numbers and masks.

Scope: what is counted and divided by what. Does not cover where the numbers come from: responses are sampled and
log-probabilities computed in `probe.py` and `grounding.py`, when and how often is `monitor.py`. R1V2 gives
hallucination rates without saying how they were measured, so every definition here is either another paper's, named
at the function, or ours. Figures carry the names they are logged under; one that nothing could be measured on is
absent, as JSON has no NaN.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from ..rewards.answers import final_answer, split_reasoning
from ..rewards.declining import BLIND_PHRASES, declines, is_unsure, plain


# Words at which a chain turns to check or change its course (R1V3 names "Wait" and "Alternatively"; the rest is ours).
CRITICAL_WORDS = ("Wait", "Alternatively", "Hmm", "However", "Actually", "But wait", "Let me check")

_FONTS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_YES = re.compile(r"\b(?<!not )(?:yes|yeah|yep|yup)\b", re.IGNORECASE)
# "No" as an answer: before a pause or the end, or at the start; elsewhere it counts things ("there is no cat").
_NO = re.compile(r"\b(?<!not )(?:no|nope)\b(?=\W*$|\s*[.,;:!?)—–](?!\s?\d)|\s+-\s)", re.IGNORECASE)
_LEADING_NO = re.compile(
    r"\W*no\b(?![-\s]+(?:one|idea|doubt|question|clue|way|matter|problem|longer|answer|comment)\b|\.?\s?\d)",
    re.IGNORECASE,
)
_BOTH = re.compile(r"\b(?:yes\s*(?:or|/)\s*no|no\s*(?:or|/)\s*yes)\b", re.IGNORECASE)
_BLIND = tuple(re.compile(phrase, re.IGNORECASE) for phrase in BLIND_PHRASES)


def blind_phrases(text: str) -> list[str]:
    """
    The passages in which a response, reasoning included, claims that it cannot see its image: matches of
    `BLIND_PHRASES`, in single spaces.
    """
    text = plain(text)
    return [match.group(0) for pattern in _BLIND for match in pattern.finditer(text)]


def blind_phrase_figures(texts: Sequence[str]) -> dict[str, float]:
    """
    `blind_phrase_rate`: share of responses, to prompts with images, with a blind phrase (R1V3, arXiv 2507.06167: 47 of
    900 traces on MMMU).
    """
    return _known(blind_phrase_rate=_mean([bool(blind_phrases(text)) for text in texts]))


def grounding_gaps(logps: np.ndarray, without_image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    r"""
    How much each response owes to its image, in nats per token:

    \\( g_i = \frac{1}{|y_i|} \sum_t m_{it} \left[ \log \pi(y_{it} | v_i, x_i, y_{i,<t})
    - \log \pi(y_{it} | \tilde v_i, x_i, y_{i,<t}) \right] \\)

    with \\( \tilde v \\) a blank or another row's image. 0 for a model that ignores the image. Ours; the difference is
    the pointwise mutual information that visual contrastive decoding (arXiv 2311.16922) adds to its logits.

    Args:
        logps (`np.ndarray` of shape `(B, C)`): Log-probabilities of the response tokens, nats.
        without_image (`np.ndarray` of shape `(B, C)`): The same with the image replaced.
        mask (`np.ndarray` of shape `(B, C)`): 1 for response tokens, 0 for padding, whose values are not read.

    Returns:
        `np.ndarray` of shape `(B,)`: NaN for a response without tokens.
    """
    mask = np.asarray(mask, dtype=bool)
    difference = np.where(mask, np.asarray(logps, dtype=np.float64) - np.asarray(without_image, np.float64), 0.0)
    counts = mask.sum(axis=1)
    return np.divide(difference.sum(axis=1), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def grounding_figures(gaps: Sequence[float], min_gap: float) -> dict[str, float]:
    """
    `grounding_gap`, the mean of [`grounding_gaps`] in nats per token, and `ungrounded_rate`, the share of responses
    with less than `min_gap` (ours).
    """
    return _known(grounding_gap=_mean(gaps), ungrounded_rate=_mean([gap < min_gap for gap in gaps]))


def yes_no(answer: str | None) -> bool | None:
    """Whether a final answer says yes; `None` if its first word, fonts and "Answer:" aside, is neither yes nor no."""
    plain = _FONTS.sub(r"\1", answer or "")
    word = re.match(r"\W*(?:(?:the |final )*answer(?: is)?\W+)?(yes|no)\b", plain, re.IGNORECASE)
    return None if word is None else word.group(1).lower() == "yes"


def object_answer(response: str, think_open: bool = False) -> bool | None:
    r"""
    Whether a response to a question about an object says yes; `None` if it says neither, both, or that it cannot tell.
    A marked answer (`\\boxed{}`, "the answer is", …) is read alone; otherwise the first and the last sentence after
    the reasoning (which `think_open` says the prompt has begun) count, and the others where these say neither.

    Example:
    ```python
    >>> [object_answer(text) for text in ("Yes.\nIt is on the sofa.", "No image was provided.", "Yes or no? No idea.")]
    [True, None, None]
    ```
    """
    answer = final_answer(response, think_open)
    if answer is None:
        return None
    text = answer.text if answer.anchored else split_reasoning(response, think_open)[1]
    text = _BOTH.sub("", re.sub(r"[*_`\"“”$\\{}\[\]]", "", _FONTS.sub(r"\1", text)))
    sentences = [part for part in re.split(r"(?<=[.!?])\s+(?!\d)|\n+", text) if re.search(r"\w", part)]
    if not sentences or declines(text):
        return None
    said = [
        {value for value, pattern in ((True, _YES), (False, _NO)) if pattern.search(sentence)}
        for sentence in sentences
    ]
    if _LEADING_NO.match(sentences[0]):
        said[0].add(False)
    verdicts = said[0] | said[-1] or set().union(*said)
    if len(verdicts) != 1 or (False in verdicts and is_unsure(text)):
        return None
    return verdicts.pop()


def object_probe_figures(answers: Sequence[bool | None], truths: Sequence[bool]) -> dict[str, float]:
    """
    Answers to yes/no questions about objects, as POPE (arXiv 2305.10355) reports them; "yes" is the positive class,
    and an answer that is neither (`None`) is wrong.

    Returns:
        `dict[str, float]`: `object_accuracy` and `object_error`, 1 − accuracy; `object_precision`, the share of right
            ones among the answers "yes"; `object_recall`, the share of answers "yes" among the questions whose answer
            is yes; `object_f1`, `2·TP / (2·TP + FP + FN)`; `object_yes_rate`; `object_unparsed`, the share of answers
            that are neither (POPE takes them for "yes" unless they hold a "no").
    """
    pairs = list(zip(answers, truths, strict=True))
    hits = sum(answer is True and truth for answer, truth in pairs)
    false_yes = sum(answer is True and not truth for answer, truth in pairs)
    missed = sum(answer is not True and truth for answer, truth in pairs)
    accuracy = _mean([answer is not None and answer == truth for answer, truth in pairs])
    return _known(
        object_accuracy=accuracy,
        object_precision=_ratio(hits, hits + false_yes),
        object_recall=_ratio(hits, hits + missed),
        object_f1=_ratio(2 * hits, 2 * hits + false_yes + missed),
        object_yes_rate=_mean([answer is True for answer, _ in pairs]),
        object_unparsed=_mean([answer is None for answer, _ in pairs]),
        object_error=1 - accuracy,
    )


def named_object_figures(unsupported: Sequence[Sequence], named: Sequence[Sequence] | None = None) -> dict[str, float]:
    """
    Named objects that the image does not hold, as CHAIR (arXiv 1809.02156) counts them, from each response's mentions
    without support and, for CHAIR_i, all its mentions; a response takes the place of CHAIR's caption.

    Returns:
        `dict[str, float]`: `rate`, CHAIR_s: the share of responses with such a mention, which `trl-r1v2 evaluate`
            calls the hallucination rate; `chair_i`, such mentions divided by all.
    """
    chair_i = math.nan if named is None else _ratio(sum(map(len, unsupported)), sum(map(len, named)))
    return _known(rate=_mean([len(claims) > 0 for claims in unsupported]), chair_i=chair_i)


def disagreement_figures(
    scores: Sequence[float | None], right: Sequence[bool | None], threshold: float | None = None
) -> dict[str, float]:
    r"""
    How far reward model (`scores`, in its units) and rule (`right`) disagree, where both say something (ours); the
    sign of reward hacking is that `reward_auc` falls and the two shares rise.

    Returns:
        `dict[str, float]`: `wrong_above_threshold`, the share of wrong responses that score at least the threshold;
            `wrong_above_median`, that above the median of right ones; `reward_auc`, the probability that a right
            response scores above a wrong one, ties half (the Mann-Whitney statistic \\( U / (n_r n_w) \\)): 0.5 says
            that the reward model cannot tell, less that it prefers the wrong.
    """
    known = [(s, r) for s, r in zip(scores, right, strict=True) if s is not None and r is not None]
    good = np.array([score for score, verdict in known if verdict], dtype=np.float64)
    bad = np.sort(np.array([score for score, verdict in known if not verdict], dtype=np.float64))
    both = len(good) > 0 and len(bad) > 0
    wins = np.searchsorted(bad, good, "left").sum() + np.searchsorted(bad, good, "right").sum()
    return _known(
        wrong_above_threshold=math.nan if threshold is None else _mean(bad >= threshold),
        wrong_above_median=_mean(bad > np.median(good)) if both else math.nan,
        reward_auc=float(wins / (2 * len(good) * len(bad))) if both else math.nan,
    )


def critical_positions(pieces: Sequence[str], words: Sequence[str] = CRITICAL_WORDS) -> list[int]:
    """
    Where a response starts to write a critical word: ascending indices of the tokens that hold the words' first
    letters. `pieces` are its tokens, each decoded by itself. Letter case counts: "wait" in mid-sentence is no turn.
    """
    text = "".join(pieces)
    ends = np.cumsum([len(piece) for piece in pieces])
    pattern = re.compile(r"\b(?:" + "|".join(re.escape(word) for word in words) + r")\b")
    starts = [match.start() for match in pattern.finditer(text)]
    return sorted({int(np.searchsorted(ends, start, "right")) for start in starts})


def critical_figures(entropies: Sequence[Sequence[float]], positions: Sequence[Sequence[int]]) -> dict[str, float]:
    """
    Critical-token entropy, R1V3's signal for choosing checkpoints (arXiv 2507.06167), from the entropy (nats) before
    each token of each response and its [`critical_positions`]. The comparison with the other tokens is ours.

    Returns:
        `dict[str, float]`: `critical_entropy`, the mean entropy of the distributions that critical words were drawn
            from, nats; `other_entropy`, the same of all other tokens; `critical_tokens`, the number of critical words.
    """
    critical, others = [], []
    for values, places in zip(entropies, positions, strict=True):
        for index, value in enumerate(values):
            (critical if index in set(places) else others).append(value)
    return _known(critical_entropy=_mean(critical), other_entropy=_mean(others), critical_tokens=float(len(critical)))


def _known(**figures: float) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def _mean(values: Sequence) -> float:
    return float(np.mean(np.asarray(values, dtype=np.float64))) if len(values) else math.nan


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
