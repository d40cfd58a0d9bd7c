# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Does an answer decline to answer? "No image was provided." begins with the word of a yes/no choice and is none.

Pure. The patterns are ours. They are narrower than those of `trl_r1v2.hallucination.signals`, which look through whole
chains of thought: here a match makes an answer wrong, so "I cannot see dogs in the image" must not be one. Does not
cover whether an answer is right.
"""

import re


_NOUN = (
    r"(?:(?:attached|actual|visible|provided|given|uploaded|accompanying|such|input)\s+)*"
    r"(?:image|picture|figure|diagram|photo|photograph|graph|chart|plot|table|drawing|illustration|attachment)s?"
)
_STATE = (
    r"(?:attached|provided|available|visible|given|shown|included|present|presented|supplied|uploaded|found|accessible"
    r"|displayed|loaded|shared|seen|viewed)"
)
# what may follow a missing image; "no figure shown is a square" speaks about figures
_END = (
    r"(?=\W*$|\s*[,.;:!?()}]|\s+(?:so|here|and|hence|therefore|thus|but|to\s+(?:me|us|answer|it|the|this|your)"
    r"|by\s+(?:you|the)|for\s+(?:me|this|the)|with\s+(?:the|this|your)"
    r"|in\s+(?:the|this|your)\s+(?:question|prompt|message|problem|input|conversation|context))\b)"
)
_NOT = r"(?:can(?:no|\s+no|')t|could(?:n't|\s+not)|unable\s+to|not\s+able\s+to|do(?:n't|\s+not)|did(?:n't|\s+not))"
_ARE = r"(?:is|are|was|were|has\s+been|have\s+been|seems?\s+to\s+be|appears?\s+to\s+be|can\s+be|could\s+be)"
_MATTER = r"(?:(?:visual|enough|sufficient|further)\s+)?(?:information|data|context|details?|input|content)"

_DECLINES_RE = re.compile(
    "|".join(
        (
            rf"\b{_NOT}\s+(?:\w+ly\s+)?(?:see|view|access|open|look\s+at|display|observe|perceive|load|process"
            rf"|receive|find|have(?:\s+access\s+to)?)\s+(?:(?:the|any|an?|this|that|your|these|those)\s+)?{_NOUN}\b"
            r"(?!\s+(?:of|that|which|showing|with|where|in)\b)",
            rf"\bno\s+{_NOUN}\s+(?:{_ARE}\s+)?(?:actually\s+)?{_STATE}\b{_END}",
            rf"^\W*no\s+{_NOUN}\W*$|\bthere(?:'s|\s+is|\s+are|\s+was)\s+no\s+{_NOUN}\b{_END}",
            rf"\b{_NOUN}\s+(?:(?:is|are|was|were|has|have|does|do|did|could)(?:\s+not|n't)|can(?:no|')t)\s+"
            rf"(?:be(?:en)?\s+)?(?:{_STATE}|load|display)\b{_END}",
            rf"\b{_NOUN}\s+(?:{_ARE}\s+)?(?:missing|absent|unavailable|inaccessible)\b{_END}",
            rf"\bwithout\s+(?:actually\s+)?(?:seeing|viewing|access\s+to|being\s+able\s+to\s+see)\s+(?:\w+\s+)?{_NOUN}\b",
            rf"\bno\s+{_MATTER}\s+(?:{_ARE}\s+)?{_STATE}\b",
            r"^\W*no\s+(?:answer|response|idea|conclusion)\b(?!\s*,)",
            rf"\bI(?:'m|\s+am)?\s+(?:\w+\s+)?{_NOT}\s+(?:\w+ly\s+)?(?:answer|help|assist|respond|comply)\b",
            rf"\bI(?:'m|\s+am)?\s+(?:\w+\s+)?{_NOT}\s+\w+\s+(?:(?:the|an|any|this|that|your)\s+)?(?:\w+\s+)?"
            r"(?:answer|question|problem)\b",
            r"\bplease\s+(?:re-?)?(?:provide|upload|attach|share|send)\b",
            r"\bas\s+an\s+ai\b|\bas\s+a\s+(?:text-based|language|text)\b",
        )
    ),
    re.IGNORECASE,
)
_UNSURE_RE = re.compile(
    rf"\bI(?:'m|\s+am)?\s+(?:\w+\s+)?{_NOT}\s+(?:\w+ly\s+)?"
    r"(?:determin|identif|solv|tell|say|know|be\s+(?:sure|certain)|provid)"
    r"|\bnot\s+(?:sure|certain)\b|\b(?:not\s+enough|insufficient)\s+information\b",
    re.IGNORECASE,
)
_REFUSAL_RE = re.compile(
    r"(?:can(?:no|')t|could ?n[o']t|unable to|not able to|impossible to)\s+(?:be\s+)?"
    r"(?:answer|determin|identif|solv|see|view|provid|tell|help|assist)"
    r"|not enough information|insufficient information|no image (?:is|was|has)|as an ai\b|无法(?:确定|回答|判断|查看|看到)",
    re.IGNORECASE,
)
_YES_NO_RE = re.compile(r"\W*(?:yes|no|true|false)\b", re.IGNORECASE)


def declines(text: str) -> bool:
    """
    Whether an answer declines, whatever else it says: the image is missing or cannot be seen, nobody can answer.

    Args:
        text (`str`):
            Final answer.

    Returns:
        `bool`

    Example:

    ```python
    >>> [declines(text) for text in ("No image was provided.", "No, the angle is not right.")]
    [True, False]
    ```
    """
    return _DECLINES_RE.search(_plain(text)) is not None


def is_unsure(text: str) -> bool:
    """Whether an answer that begins with yes or no takes it back: "No, I cannot tell". Takes the final answer's text."""
    return _UNSURE_RE.search(_plain(text)) is not None


def refuses(text: str) -> bool:
    """
    Whether an answer declines, or says that something cannot be determined; after "No," the latter is an explanation.

    Args:
        text (`str`):
            Final answer.

    Returns:
        `bool`
    """
    return declines(text) or _REFUSAL_RE.search(_plain(text)) is not None


def says_yes_or_no(text: str) -> bool:
    """Whether yes, no, true or false is the first word of an answer."""
    return _YES_NO_RE.match(text) is not None


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("’", "'"))
