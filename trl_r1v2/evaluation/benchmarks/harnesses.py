# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The benchmarks of R1V2 that another harness measures better: they run code, check instructions by program, or call tools.

Each entry holds the command, for a model behind an OpenAI-style server. The commands follow the harnesses' own pages
and are not run by this project. Does not cover installing them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Harness:
    """
    How a benchmark is measured elsewhere.

    Args:
        title (`str`):
            Name of the benchmark in print.
        harness (`str`):
            The program.
        why (`str`):
            Why it is not measured here.
        install (`str`):
            Command that installs it.
        command (`str`):
            Command that measures; `{model}` and `{url}` stand for the served model and `http://host:port/v1`.
    """

    title: str
    harness: str
    why: str
    install: str
    command: str

    def instruction(self, model: str, url: str = "http://localhost:8000/v1") -> str:
        """Return what to do instead of `trl-r1v2 evaluate`."""
        command = self.command.format(model=model, url=url)
        return (
            f"{self.title} is measured by {self.harness}, not here: {self.why}. Serve the model behind an OpenAI-style "
            f"API, then:\n  {self.install}\n  {command}"
        )


HARNESSES = {
    "livecodebench": Harness(
        title="LiveCodeBench",
        harness="lighteval",
        why="it runs generated programs against hidden tests in its own runner",
        install="pip install 'lighteval[litellm]'",
        command="lighteval endpoint litellm \"model_name=openai/{model},base_url={url}\" 'lcb:codegeneration|0'",
    ),
    "livebench": Harness(
        title="LiveBench",
        harness="LiveBench's own runner",
        why="its questions and scorers change with every release",
        install="git clone https://github.com/LiveBench/LiveBench && pip install -e LiveBench && cd LiveBench/livebench",
        command=(
            "python run_livebench.py --model {model} --bench-name live_bench --api-base {url} "
            "--livebench-release-option 2024-11-25"
        ),
    ),
    "ifeval": Harness(
        title="IFEval",
        harness="lm-evaluation-harness",
        why="each instruction has a checking program there",
        install="pip install 'lm_eval[api,ifeval]'",
        command=(
            "lm_eval --model local-chat-completions --tasks ifeval --apply_chat_template "
            "--model_args model={model},base_url={url}/chat/completions,num_concurrent=16,max_retries=3,"
            "tokenized_requests=False"
        ),
    ),
    "bfcl": Harness(
        title="BFCL",
        harness="the Berkeley Function Calling Leaderboard's own runner",
        why="it parses and executes function calls in several languages",
        install="pip install bfcl-eval",
        command=(
            "REMOTE_OPENAI_BASE_URL={url} bfcl generate --model {model} --test-category all --skip-server-setup && "
            "bfcl evaluate --model {model} --test-category all"
        ),
    ),
}
