# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Does a text say that its image is missing or cannot be seen, and does an answer decline to answer? "No image was
provided." begins with the word of a yes/no choice and is none.

Pure. The patterns are ours. `BLIND_PHRASES` also serve whole chains of thought (`hallucination/signals.py`), so they
leave alone what an image does not show ("I cannot see dogs in the image") and the images that a text is about ("no
figure was given for 2019"). Does not cover whether an answer is right.
"""

import re


# ---- Parts; texts are read with single spaces ----

_PICTURE = (
    r"(?:(?:actual|attached|visible|provided|given|uploaded|accompanying|such|input|corresponding) ){0,3}"
    r"(?:image|picture|figure|diagram|photo|photograph|graph|chart|plot|screenshot|illustration|attachment)s?"
)
_THING = r"(?:table|map|drawing)s?"  # which an image may show: "I see no table" answers a question
_NOUN = rf"(?:{_PICTURE}|{_THING})"
_THE = r"(?:the|this|that|your|these|those|any of the) "
_IT = (
    rf"(?:(?:{_THE}|an? |any )?{_PICTURE}|{_THE}{_THING}|what(?:'s| is) in the {_PICTURE})"
    r"(?: contents?| files?| itself)?"
)
_GIVEN = r"(?:attached|provided|available|given|included|presented|supplied|uploaded|accessible|loaded|shared|sent)"
_SHOWN = r"(?:visible|shown|present|displayed|rendered|found|seen|viewed)"
_TASK = r"(?:the|this|your) (?:\w+ )?(?:question|prompt|message|problem|input|conversation|context|user)"
# What may follow an image that is missing; "no figure shown is a square" speaks about figures.
_END = (
    r"(?=\W*$| ?[,.;:!?()—–]| - "
    r"| (?:so|here|and|or|hence|therefore|thus|but|yet|now|because|since|although|if|I|we|you|let"
    r"|it|there|directly|properly|mentioned|at (?:all|this|the moment)|right now|as (?:I|an? (?:AI|text|language))"
    r"|(?:that|which) (?:you|was|were|is|are)"
    r"|to (?:me|us|it|you|answer|solve|analy[sz]e|look at)|by you|on my|along|in front of"
    rf"|for (?:me|us|this|reference)|with (?:it|this|my|question)|(?:to|by|for|with|in|from) {_TASK})\b)"
)
_N_T = r"(?:n't| not)"
_ARE = r"(?:is|are|was|were|has been|have been|can be|could be|(?:seem|appear)s? to be)"
_ARE_NOT = (
    rf"(?:(?:(?:is|are|was|were|has|have|does|do|did|could){_N_T}|ca(?:nnot|n't)|won't"
    rf"|(?:(?:is|are|can|will)(?: \w+ly)? )?not) "
    r"(?:be(?:en)? )?(?:\w+ly )?|failed to )"
)
_CANNOT = (
    rf"(?:ca(?:nnot|n't|n not)|could{_N_T}|(?:(?:was|were|are)n't|not)(?: \w+ly)? able to|unable to"
    rf"|(?:do|did|have){_N_T})"
)
_SEE = (
    r"(?:(?:even|\w+ly) )?(?:see|seen|view|access|open|look at|display|observe|perceive|load|process|receive|received"
    r"|find|have|have (?:\w+ )?access to)"
)
# Whose eyes: "the man cannot see the picture behind him".
_I = (
    r"(?:\b(?:I|we|AI|model|assistant)(?:'m|'re|'ve)?(?: (?:am|are|was|were|have|still|also|just|\w+ly)){0,4} "
    r"|(?:^|[.!?;:(>—] ?|sorry, ))"
)
# Neither quoted, as by a sign that says "no photos are available", nor asked for, nor lacked by something shown.
_SAID = r"(?<![\w:,] ['\"“‘])(?<!\bwhich )(?<!\bwhat )(?<!\bhas )(?<!\bhave )"

BLIND_PHRASES = (
    rf"{_I}{_CANNOT} {_SEE} {_IT}\b{_END}",
    rf"{_I}{_CANNOT} (?:\w+ly )?(?:interpret|analy[sz]e) (?:images|pictures|photos)\b",
    rf"\b(?:I|we)(?: \w+ly)? (?:have no|lack|do{_N_T} have(?: any)?) (?:visual (?:access|input)|{_PICTURE}\b{_END}"
    rf"|(?:\w+ )?access to {_IT}\b{_END})",
    rf"\b(?:no (?:way|means|ability)(?: for (?:me|us))?|(?:do{_N_T} have|lack) (?:the|any) \w+)"
    rf" to {_SEE} {_IT}\b{_END}",
    rf"\b(?:I|we)(?:'m|'re|'ve| am| are| was| were| have){_N_T}(?: been)?"
    rf"(?: \w+ly)? (?:given|shown|sent|provided with) {_IT}\b{_END}",
    rf"\b(?:you|user|question|prompt|problem)(?: (?:have|has|did|do|does){_N_T}| forgot to| failed to)"
    rf" (?:provide|attach|upload|include|share|send|sent|come with)(?:d|ed)? {_IT}\b{_END}",
    rf"{_SAID}\bno (?:{_NOUN} (?:{_ARE} )?(?:actually )?{_GIVEN}"
    rf"|{_PICTURE} (?:{_ARE} )?(?:actually )?{_SHOWN})\b{_END}",
    rf"\bthere(?:'s| is| are| was| were) no {_PICTURE}\b{_END}",
    rf"{_SAID}\b(?:{_NOUN} {_ARE_NOT}{_GIVEN}"
    rf"|{_PICTURE} {_ARE_NOT}(?:{_SHOWN}|here|load|loading|display|render|appear|upload"
    rf"|come through|show up))\b{_END}",
    rf"{_SAID}(?<!\bno )\b{_NOUN} (?:{_ARE} )?(?:\w+ly )?(?:missing|absent|unavailable|inaccessible)\b{_END}",
    rf"\bwithout (?:actually |directly )?(?:seeing|viewing|access to|being able to {_SEE}) {_IT}\b{_END}",
    rf"\bwithout (?:{_THE}|an? |any ){_NOUN},? (?:I\b(?! (?:could|also|still)\b)|we (?:must|have to|ca(?:nnot|n't))"
    r"|it(?:'s| is) (?:hard|impossible|difficult))\b",
    rf"\bI(?:'d| would) (?:need|have) to (?:see|view) {_IT}\b{_END}",
    rf"\bplease (?:re-?)?(?:provide|upload|attach|share|send) {_IT}\b",
)

# ---- Answers ----

_MATTER = r"(?:(?:visual|enough|sufficient|further) )?(?:information|data|context|details?|input|content)"
_HELP = r"(?:answer|help|assist|respond|comply)"
_DECLINES_RE = re.compile(
    "|".join(
        (
            *BLIND_PHRASES,
            rf"^\W*no {_NOUN}\W*$",
            rf"\bno {_MATTER} (?:{_ARE} )?(?:{_GIVEN}|{_SHOWN})\b",
            r"^\W*no (?:answer|response|idea|conclusion)\b(?! ?,)",
            rf"\bI(?:'m| am)? (?:\w+ )?{_CANNOT} (?:\w+ly )?{_HELP}\b",
            rf"\bI(?:'m| am)? (?:\w+ )?{_CANNOT} \w+ (?:(?:the|an|any|this|that|your) )?"
            rf"(?:\w+ )?(?:answer|question|problem)\b",
            r"\bplease (?:re-?)?(?:provide|upload|attach|share|send)\b",
            r"\bas an ai\b|\bas a (?:text-based|language|text)\b",
        )
    ),
    re.IGNORECASE,
)
_UNSURE_RE = re.compile(
    rf"\bI(?:'m| am)? (?:\w+ )?{_CANNOT} (?:\w+ly )?"
    r"(?:determin|identif|solv|tell|say|know|be (?:sure|certain)|provid)"
    r"|\bnot (?:sure|certain)\b|\b(?:not enough|insufficient) information\b",
    re.IGNORECASE,
)


def declines(text: str) -> bool:
    """
    Whether a final answer declines, whatever else it says: the image is missing or cannot be seen, nobody can answer.
    So does "No image was provided."; "No, the angle is not right." does not.
    """
    return _DECLINES_RE.search(plain(text)) is not None


def is_unsure(text: str) -> bool:
    """Whether a final answer's text that begins with yes or no takes it back: "No, I cannot tell"."""
    return _UNSURE_RE.search(plain(text)) is not None


def plain(text: str) -> str:
    """A text as the patterns read it: single spaces, straight apostrophes, no bold print."""
    return re.sub(r"\s+", " ", text.replace("’", "'").replace("*", ""))
