# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Tests in the layouts of public data sets: APPS, TACO, LiveCodeBench, LeetCode; floats, long integers, long outputs.
"""

import json

import pytest

from tests.rewards.test_code_tests import judged, needs_bwrap, reward  # noqa: F401
from trl_r1v2.rewards.code.reward import same_output


SOLUTION = """
class Solution:
    def twoSum(self, nums, target):
        return [[i, j] for i in range(len(nums)) for j in range(i) if nums[i] + nums[j] == target][0][::-1]
"""
PLAIN = "def twoSum(nums, target):\n    return Solution().twoSum(nums, target)\n" + SOLUTION
LONG = "7" * 5001


@needs_bwrap
@pytest.mark.parametrize("source", [SOLUTION, PLAIN])
@pytest.mark.parametrize(
    "tests",
    [
        {"fn_name": "twoSum", "inputs": [[[2, 7, 11], 9], [[3, 3], 6]], "outputs": [[0, 1], [0, 1]]},
        {"fn_name": "twoSum", "inputs": [[[2, 7, 11], 9], [[3, 3], 6]], "outputs": [[[0, 1]], [[0, 1]]]},  # APPS
        {"fn_name": "twoSum", "inputs": ["[2, 7, 11]\n9", "[3, 3]\n6"], "outputs": ["[0, 1]", "[0, 1]"]},  # TACO
    ],
)
def test_a_method_of_solution_is_a_function(reward, source, tests):  # noqa: F811
    assert judged(reward, source, json.dumps(tests)) == 1.0
    wrong = {**tests, "outputs": [tests["outputs"][0], [1, 0] if isinstance(tests["outputs"][0], list) else "[1, 0]"]}
    assert judged(reward, source, json.dumps(wrong)) == 0.5


@needs_bwrap
def test_livecodebench(reward):  # noqa: F811
    stdin = [
        {"input": "1 2\n", "output": "3\n", "testtype": "stdin"},
        {"input": "2 2\n", "output": "5\n", "testtype": "stdin"},
    ]
    assert judged(reward, "print(sum(map(int, input().split())))", json.dumps(stdin)) == 0.5
    calls = [{"input": "[2, 7]\n9", "output": "[0, 1]", "testtype": "functional"}]
    assert judged(reward, SOLUTION, json.dumps(calls), entry_point="twoSum") == 1.0
    with pytest.raises(ValueError, match="its name must stand in the column `entry_point`"):
        judged(reward, SOLUTION, json.dumps(calls))


@needs_bwrap
def test_lines_floats_long_integers_and_long_outputs(reward):  # noqa: F811
    assert judged(reward, "print(int(input()) + int(input()))", {"inputs": [["1", "2"]], "outputs": [["3"]]}) == 1.0
    assert judged(reward, "print(1/3)", {"inputs": [""], "outputs": ["0.333333"]}) == 1.0
    floats = {"fn_name": "f", "inputs": [[3], [4]], "outputs": [0.333333, 0.2]}
    assert judged(reward, "def f(x):\n    return 1 / x", floats) == 0.5
    echo = {"inputs": [LONG], "outputs": [LONG]}
    assert judged(reward, "print(int(input()))", echo) == 1.0
    call = f'{{"fn_name": "f", "inputs": [[{LONG}]], "outputs": [{LONG[:-1]}8]}}'
    assert judged(reward, "def f(x):\n    return x + 1", call) == 1.0
    assert judged(reward, "print('ab' * 300_000)", {"inputs": [""], "outputs": ["ab" * 300_000]}) == 1.0


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        ("0.3333333", "0.333333", True),
        ("0.33", "0.333333", False),
        ("1", "1.0", True),
        ("1.0", "1", False),
        ("3 0.5", "3 0.50", True),
    ]
    + [
        ("1e400", "0.5", False),
        ("nan", "0.5", False),
        ("2", "3", False),
        ("a 0.5", "b 0.5", False),
        ("0.5", "0.5\n1", False),
    ],
)
def test_only_decimals_that_are_wanted_have_a_tolerance(given, wanted, expected):
    assert same_output(given, wanted) is expected
