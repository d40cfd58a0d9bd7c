# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Does a composed model still answer text as its language model alone does?

    python -m benchmarks.real.text_logits --llm runs/smollm2_dinov2/parts/llm --composed runs/smollm2_dinov2/composed

Loads both with plain `from_pretrained`, asks both the same questions and compares prompt ids, logits over the language
model's own vocabulary, and greedy answers. Ends with exit code 1 when ids or answers differ. Writes
`benchmarks/real/text_logits.json`. Images are not covered.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from benchmarks.environment import environment


QUESTIONS = (
    "What is 3 + 5?",
    "Which digit is larger, 2 or 9?",
    "What is the capital of France?",
    "Name three primary colours.",
)


@torch.no_grad()
def compare(llm_dir: str, composed_dir: str, questions: tuple[str, ...], max_new_tokens: int) -> list[dict]:
    """
    Ask both models every question.

    Args:
        llm_dir (`str`): Folder of the causal language model.
        composed_dir (`str`): Folder of the composed model.
        questions (`tuple[str, ...]`): Text of the user's turns.
        max_new_tokens (`int`): Longest answer.

    Returns:
        `list[dict]`: For each question: `same_ids`, `max_logit_difference` (over prompt and answer, the language
        model's own vocabulary), `largest_logit`, and both answers.
    """
    tokenizer = AutoTokenizer.from_pretrained(llm_dir)
    processor = AutoProcessor.from_pretrained(composed_dir)
    llm = AutoModelForCausalLM.from_pretrained(llm_dir, dtype="auto").eval()
    composed = AutoModelForImageTextToText.from_pretrained(composed_dir, dtype="auto").eval()
    rows = []
    for question in questions:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        parts = [{"role": "user", "content": [{"type": "text", "text": question}]}]
        vlm = processor.apply_chat_template(
            parts, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        length = text["input_ids"].shape[1]
        settings = dict(max_new_tokens=max_new_tokens, do_sample=False)
        whole = llm.generate(**text, **settings)
        whole_composed = composed.generate(**vlm, **settings)
        expected = llm(input_ids=whole).logits
        found = composed(input_ids=whole).logits[..., : expected.shape[-1]]
        rows.append(
            {
                "question": question,
                "same_ids": torch.equal(text["input_ids"], vlm["input_ids"]),
                "max_logit_difference": (found - expected).abs().max().item(),
                "largest_logit": expected.abs().max().item(),
                "answer_llm": tokenizer.decode(whole[0, length:], skip_special_tokens=True),
                "answer_composed": processor.decode(
                    whole_composed[0, vlm["input_ids"].shape[1] :], skip_special_tokens=True
                ),
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", required=True, help="Folder of the language model alone.")
    parser.add_argument("--composed", required=True, help="Folder of the composed model.")
    parser.add_argument("--max_new_tokens", type=int, default=24, help="Longest answer, in tokens.")
    parser.add_argument("--output", default="benchmarks/real/text_logits.json", help="File to write.")
    args = parser.parse_args()
    start = time.perf_counter()
    rows = compare(args.llm, args.composed, QUESTIONS, args.max_new_tokens)
    same = all(row["same_ids"] and row["answer_llm"] == row["answer_composed"] for row in rows)
    result = {
        "max_logit_difference": max(row["max_logit_difference"] for row in rows),
        "same_ids_and_answers": same,
        "questions": rows,
        "seconds": round(time.perf_counter() - start, 1),
        "environment": environment(),
    }
    Path(args.output).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("max_logit_difference", "same_ids_and_answers")}))
    if not same:
        raise SystemExit("the composed model answers differently from its language model")


if __name__ == "__main__":
    main()
