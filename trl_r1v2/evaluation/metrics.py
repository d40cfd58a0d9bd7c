# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Rates with their uncertainty, from one value for each row and sample.

Pass@1 is the mean over `k` sampled runs (R1V2, section 4: mean of 5 runs); the paper gives no interval, so the ones
here are ours. Samples of one row are not independent: rows are the units of every standard error. Also the votes of
several samples: pass@k and the majority. Pure: numpy and scipy.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """
    A rate and how well it is known.

    Args:
        value (`float`): Mean over rows and samples, in [0, 1].
        standard_error (`float` or `None`): Standard error of the mean with rows as units; `None` for a single row.
        low (`float`), high (`float`): 95 % interval.
        num_rows (`int`): Rows.
    """

    value: float
    standard_error: float | None
    low: float
    high: float
    num_rows: int


def estimate_rate(values: np.ndarray | Sequence, draws: float | None = None) -> Estimate:
    r"""
    Estimate a rate from `k` samples of each of `n` rows.

    The interval is Wilson's, for the number of independent samples that would give the observed spread of row means:
    \\( n_\text{eff} = p(1-p) / \widehat{\text{Var}}(\bar x) \\). With one sample a row this is Wilson's interval with
    `n`; where every sample agrees, the samples of a row count once. Source: ours.

    Args:
        values (`np.ndarray` of shape `(n, k)`): Scores in [0, 1], dimensionless.
        draws (`float`, *optional*): Independent draws behind a row's values, the most that a row can count for.
            Defaults to `k`; pass@k from `n` samples has `n / k` in its one value a row.

    Returns:
        [`Estimate`]: Mean over all `n * k` values.

    Raises:
        ValueError: There is no value, or one outside [0, 1], or `draws` is less than 1.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"values have shape {values.shape} but must be (rows, samples), with at least one of each.")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"values lie between {values.min()} and {values.max()} but must be in [0, 1] to give a rate.")
    num_rows, num_samples = values.shape
    draws = num_samples if draws is None else draws
    if draws < 1:
        raise ValueError(f"draws is {draws} but must be at least 1: every row has a value.")
    row_means = values.mean(axis=1)
    value = float(row_means.mean())
    standard_error = float(row_means.std(ddof=1) / math.sqrt(num_rows)) if num_rows > 1 else None
    variance = row_means.var() / num_rows
    if value in (0.0, 1.0):
        num_effective = num_rows
    elif variance == 0:
        num_effective = num_rows * draws
    else:
        num_effective = min(value * (1 - value) / variance, num_rows * draws)
    low, high = wilson_interval(value, num_effective)
    return Estimate(value, standard_error, low, high, num_rows)


def wilson_interval(value: float, num: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate measured on `num` independent samples."""
    z = stats.norm.ppf(0.5 + CONFIDENCE / 2)
    centre = (value + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(value * (1 - value) / num + z * z / (4 * num * num))
    # the exact bound at 0 and 1, which rounding would miss
    return (0.0 if value == 0 else max(0.0, centre - half)), (1.0 if value == 1 else min(1.0, centre + half))


@dataclass(frozen=True)
class Difference:
    """
    Change of a rate between two evaluations of the same rows.

    Args:
        value (`float`): Mean change, in [-1, 1].
        low (`float` or `None`), high (`float` or `None`): 95 % interval (Student's t over rows); `None` where all rows
            changed by the same amount, which says nothing about its spread.
        num_rows (`int`): Rows that both evaluations judged.
    """

    value: float
    low: float | None
    high: float | None
    num_rows: int


def paired_difference(before: np.ndarray | Sequence, after: np.ndarray | Sequence) -> Difference:
    """Estimate the change of a rate from the mean score of each row, shape `(n,)`, before and after."""
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or before.size == 0:
        raise ValueError(f"shapes {before.shape} and {after.shape} must be equal, one value a row.")
    change = after - before
    value, num_rows = float(change.mean()), len(change)
    if np.ptp(change) == 0:
        return Difference(value, None, None, num_rows)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, num_rows - 1) * change.std(ddof=1) / math.sqrt(num_rows))
    return Difference(value, value - half, value + half, num_rows)


def pass_at_k(values: np.ndarray | Sequence, k: int) -> np.ndarray:
    r"""
    Chance that at least one of `k` samples is right, for each row, without bias, from scores of shape `(rows, n)`,
    where a sample is right if its score is 1.

    With `c` of `n` samples right it is \\( 1 - \binom{n-c}{k} / \binom{n}{k} \\), the mean over all choices of `k` of
    the `n` samples. Source: Chen et al., arXiv 2107.03374, eq. 1.
    """
    values = np.asarray(values, dtype=np.float64)
    num_samples = values.shape[1]
    if not 1 <= k <= num_samples:
        raise ValueError(f"k is {k}, but there are {num_samples} samples a row: give 1 to {num_samples}.")
    num_right = (values >= 1.0).sum(axis=1)
    total = math.comb(num_samples, k)
    # one division, so that k = 1 is the row's mean to the last digit
    return np.array([(total - math.comb(num_samples - int(right), k)) / total for right in num_right])


def majority_score(answers: Sequence[str | None], scores: Sequence[float]) -> float:
    """
    Score, in [0, 1], of the answer that most samples of a row give; samples without an answer do not vote, and 0
    stands where no sample has one. Of answers with as many votes the one given first counts (ours). Samples that give
    the same answer and differ in score, as a judge may make them, count with their mean.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    winner = votes.most_common(1)[0][0]
    chosen = [score for answer, score in zip(answers, scores, strict=True) if answer == winner]
    return float(np.mean(chosen))
