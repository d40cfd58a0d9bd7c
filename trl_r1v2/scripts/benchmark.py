# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`trl-r1v2 benchmark`: R1V2's ten public benchmarks, measured by the harnesses that are kept for them.

    trl-r1v2 benchmark --model_name_or_path runs/grpo --server_url http://localhost:8000/v1 --output_dir runs/bench

Prints the commands: an environment for each harness, and R1V2's protocol (section 4: 5 runs, up to 64K new tokens, a
judge) against a served model. With `run: true` it carries them out. Does not cover serving, nor reading what the
harnesses write.
"""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers.hf_argparser import HfArg

from .recipe import RecipeError


@dataclass(frozen=True)
class Harness:
    """
    How a harness is installed (into `{venv}`) and run once for each of its benchmarks. Braces stand for the values of
    [`run_commands`]; `results` are the files that a run leaves in `{output}`, since some harnesses end with 0 after an
    error.
    """

    install: tuple[str, ...]
    tasks: dict[str, str]
    commands: tuple[str, ...]
    results: str
    env: dict[str, str] = field(default_factory=dict)


# bfcl-eval takes models of its own list alone, so the served one is put on it.
_BFCL = """
import sys
from bfcl_eval.constants import model_config as known
from bfcl_eval.model_handler.api_inference.openai_completion import OpenAICompletionsHandler as Handler
name = sys.argv[sys.argv.index("--model") + 1]
known.MODEL_CONFIG_MAPPING[name] = known.ModelConfig(name, name, "", "", "", Handler, None, None, True, True)
from bfcl_eval.__main__ import cli
cli()
"""
HARNESSES = {
    "lmms-eval": Harness(
        install=("{pip} lmms-eval==0.7.3 filelock<3.20 math-verify latex2sympy2-extended levenshtein",),
        tasks={
            "mmmu": "mmmu_val_reasoning",
            "mmmu_pro": "mmmu_pro_cot",
            "mathvista": "mathvista_testmini_cot",
            "mathvision": "mathvision_reason_testmini",
            "olympiadbench": "olympiadbench_OE_MM_maths_en_COMP,olympiadbench_OE_MM_physics_en_COMP",
        },
        commands=(
            "{venv}/bin/lmms-eval eval --model openai --tasks {task} --output_path {output} --log_samples --seed "
            "{seed} --model_args model={model},base_url={server_url},api_key=EMPTY,timeout={server_timeout},"
            "num_concurrent={server_concurrency} --gen_kwargs "
            "max_new_tokens={max_new_tokens},temperature={temperature},top_p={top_p},seed={seed},until=[] {extra}",
        ),
        results="*/*_results.json",
        env={"API_TYPE": "openai", "MODEL_VERSION": "{judge_model}", "OPENAI_API_URL": "{judge_url}"},
    ),
    "lighteval": Harness(
        install=("{pip} lighteval[litellm]==0.13.0 litellm[caching]<1.81 huggingface-hub<1 transformers<5 xxhash<4",),
        tasks={"aime_2024": "aime24", "livecodebench": "lcb:codegeneration"},
        commands=(
            "{venv}/bin/lighteval endpoint litellm {lighteval_model} {task} --output-dir {output} --save-details "
            "{extra}",
        ),
        results="results/**/results_*.json",
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    ),
    "lm-eval": Harness(
        install=("{pip} lm-eval[api,ifeval]==0.4.13",),
        tasks={"ifeval": "ifeval"},
        commands=(
            "{venv}/bin/lm-eval run --model local-chat-completions --tasks {task} --apply_chat_template --seed {seed} "
            "--output_path {output} --log_samples --model_args model={model} base_url={server_url}/chat/completions "
            "num_concurrent={server_concurrency} timeout={server_timeout} tokenized_requests=False "
            "tokenizer_backend=None think_end_token=</think> --gen_kwargs max_gen_toks={max_new_tokens} "
            "temperature={temperature} top_p={top_p} do_sample=true seed={seed} {extra}",
        ),
        results="*/results_*.json",
        env={"OPENAI_API_KEY": "EMPTY"},
    ),
    "bfcl-eval": Harness(
        install=("{pip} bfcl-eval==2026.3.23 soundfile",),
        tasks={"bfcl": "single_turn,multi_turn"},
        commands=(
            "{venv}/bin/python -c {bfcl} generate --model {model} --test-category {task} --temperature {temperature} "
            "--num-threads {server_concurrency} {extra}",
            "{venv}/bin/python -c {bfcl} evaluate --model {model} --test-category {task} {partial}",
        ),
        results="score/**/*_score.json",
        env={"OPENAI_BASE_URL": "{server_url}", "OPENAI_API_KEY": "EMPTY", "BFCL_PROJECT_ROOT": "{output}"},
    ),
    "livebench": Harness(
        install=(
            "git clone --depth 1 https://github.com/LiveBench/LiveBench {venv}/src",
            "{pip} --editable {venv}/src",
        ),
        tasks={"livebench": "live_bench"},
        commands=(
            "env -C {venv}/src/livebench {venv}/bin/python run_livebench.py --venv {venv}/bin/activate --mode single "
            "--model {model} --model-display-name {display}-{seed} --bench-name {task} --api-base {server_url} "
            "--api-key EMPTY --livebench-release-option 2024-11-25 --max-tokens {max_new_tokens} --force-temperature "
            "{temperature} --parallel-requests {server_concurrency} {extra}",
            "cp -r {venv}/src/livebench/data/live_bench {output}",
        ),
        results="live_bench/**/ground_truth_judgment.jsonl",
    ),
}
BENCHMARKS = {benchmark: name for name, harness in HARNESSES.items() for benchmark in harness.tasks}


@dataclass
class BenchmarkArguments:
    """Arguments of `trl-r1v2 benchmark`."""

    model_name_or_path: str = HfArg(help="Name under which the server knows the model.")
    server_url: str = HfArg(help="Address of the server, with the version: `http://localhost:8000/v1`.")
    output_dir: str = HfArg(help="Folder for what the harnesses write: `<benchmark>/<run>`.")
    benchmarks: list[str] = HfArg(default_factory=lambda: list(BENCHMARKS), help=f"Some of {', '.join(BENCHMARKS)}.")
    run: bool = HfArg(default=False, help="Carry the commands out instead of printing them.")
    environments: str = HfArg(default="environments", help="Folder of the harnesses' environments.")
    python: str = HfArg(default=sys.executable, help="Interpreter that makes them (3.10 to 3.12).")
    num_runs: int = HfArg(default=5, help="Runs with seeds of their own (R1V2, section 4: 5).")
    max_new_tokens: int = HfArg(default=65536, help="Longest response (R1V2, section 4: up to 64K).")
    temperature: float = HfArg(default=0.6, help="Temperature (QwQ-32B's own; R1V2 does not say).")
    top_p: float = HfArg(default=0.95, help="Nucleus mass (QwQ-32B's own; R1V2 does not say).")
    server_concurrency: int = HfArg(default=64, help="Requests under way at once.")
    server_timeout: int = HfArg(default=7200, help="Seconds to wait for one response.")
    judge_model: str = HfArg(default="o4-mini", help="Judge of lmms-eval (R1V2: OpenAI-o4; its name: ours).")
    judge_url: str = HfArg(default="https://api.openai.com/v1", help="Its address; key: OPENAI_API_KEY.")
    extra_args: str = HfArg(default="", help="Further arguments of every harness, e.g. `--limit 10`.")

    def __post_init__(self):
        for name in self.benchmarks:
            if name not in BENCHMARKS:
                raise ValueError(f"there is no benchmark {name!r}; known: {', '.join(BENCHMARKS)}")


def run_commands(args: BenchmarkArguments, benchmark: str, seed: int) -> tuple[list[list[str]], dict[str, str], Path]:
    """Commands of one run, the environment variables that they need, and the folder that they write to."""
    harness = HARNESSES[BENCHMARKS[benchmark]]
    output = Path(args.output_dir).absolute() / benchmark / str(seed)
    sampling = f"temperature:{args.temperature},top_p:{args.top_p},max_new_tokens:{args.max_new_tokens},seed:{seed}"
    values = {
        **vars(args),
        "venv": Path(args.environments).absolute() / BENCHMARKS[benchmark],
        "output": output,
        "task": harness.tasks[benchmark],
        "model": args.model_name_or_path,
        "display": args.model_name_or_path.replace("/", "_"),
        "seed": seed,
        "lighteval_model": f"model_name=openai/{args.model_name_or_path},base_url={args.server_url},api_key=EMPTY,"
        f"concurrent_requests={args.server_concurrency},generation_parameters={{{sampling}}}",
        "bfcl": _BFCL,
        "partial": "--partial-eval" if "--run-ids" in args.extra_args else "",
    }

    def fill(word: str) -> list[str]:
        return shlex.split(args.extra_args) if word == "{extra}" else [word.format(**values)]

    commands = [[part for word in shlex.split(text) for part in fill(word) if part] for text in harness.commands]
    return commands, {name: value.format(**values) for name, value in harness.env.items()}, output


def main(args: BenchmarkArguments) -> None:
    for name in dict.fromkeys(BENCHMARKS[benchmark] for benchmark in args.benchmarks):
        venv = Path(args.environments).absolute() / name
        places = {"venv": venv, "pip": f"{venv}/bin/pip install --quiet"}
        texts = [command.format(**places) for command in HARNESSES[name].install]
        commands = [[args.python, "-m", "venv", str(venv)], *map(shlex.split, texts)]
        if not args.run:
            print(f"\n# {name}", *map(shlex.join, commands), sep="\n")
        elif not (venv / "bin" / "pip").exists():
            install(commands, venv)
    for benchmark in args.benchmarks:
        for seed in range(args.num_runs):
            commands, env, output = run_commands(args, benchmark, seed)
            if args.run:
                carry_out(commands, env, output, HARNESSES[BENCHMARKS[benchmark]].results)
                continue
            words = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())
            lines = [f"{words} {shlex.join(command)}".strip() for command in commands]
            print(f"\n# {benchmark}, run {seed}", f"mkdir -p {shlex.quote(str(output))}", *lines, sep="\n")


def install(commands: list[list[str]], venv: Path) -> None:
    """Make an environment; of one that cannot be made whole, nothing is left to be taken for it."""
    try:
        for command in commands:
            print(shlex.join(command), flush=True)
            subprocess.run(command, check=True)
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise


def carry_out(commands: list[list[str]], env: dict[str, str], output: Path, results: str) -> None:
    """Run the commands one after the other, each with a log of its own; refuse a run that leaves no results."""
    output.mkdir(parents=True, exist_ok=True)
    for number, command in enumerate(commands):
        log = output / f"log-{number}.txt"
        print(f"{command[0]}: {log}", flush=True)
        with log.open("wb") as file:
            done = subprocess.run(command, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise RecipeError(f"exit code {done.returncode}; the end of {log} says why.")
    if not any(output.glob(results)):
        raise RecipeError(f"there is no {results} in {output}; its logs say why.")
