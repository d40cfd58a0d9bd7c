# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`trl-r1v2 <command> --config recipe.yaml`: which commands there are, and how one is started. Imports nothing heavy at
its top: `--help` and a misspelt command answer at once.
"""

import argparse
import importlib
import inspect
import sys

from .. import __version__


# What a command does; `*` marks those that `accelerate launch` may start in several processes.
COMMANDS = {
    "run": "run the stages of a pipeline recipe in order, resuming after the last finished one",
    "compose": "vision tower, adapter and language model → one InternVL checkpoint",
    "convert": "published checkpoint layout ↔ transformers' own",
    "check-data": "check columns, prompts, images, responses and gold answers as training would",
    "align": "supervised start of a composed model on demonstrations *",
    "filter-prompts": "keep the prompts that the model answers right and wrong *",
    "reward": "a scalar reward model that sees the image, from preference pairs *",
    "pairs": "sample and score responses, and build preference pairs for MPO *",
    "calibrate": "sweep reward thresholds over the scored responses of `pairs`",
    "mpo": "Mixed Preference Optimization: preference, quality and generation loss *",
    "grpo": "GRPO with the Selective Sample Buffer *",
    "evaluate": "greedy accuracy, Pass@1 over k runs, format and hallucination rate",
    "benchmark": "R1V2's public benchmarks by the harnesses kept for them, against a served model",
    "report": "one HTML page with tables and plots from evaluations and training logs",
    "serve-reward": "a scalar reward model over HTTP, for the hybrid reward",
}


def script_of(command: str) -> str:
    """The module of a command."""
    return f"trl_r1v2.scripts.{command.replace('-', '_')}"


def main(argv: list[str] | None = None, may_launch: bool = True) -> int:
    """Run the command line, `sys.argv[1:]` by default, and return the exit code; `may_launch` by accelerate."""
    argv = (sys.argv[1:] if argv is None else argv) or ["--help"]
    parser = argparse.ArgumentParser(
        prog="trl-r1v2",
        usage="trl-r1v2 <command> --config recipe.yaml [--key value ...] [accelerate launch options]",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=20),
        description="Hybrid reinforcement learning of vision-language reasoning models, the Skywork R1V2 method, on "
        "TRL.\nA recipe is a YAML file of the command's arguments; the command line overrides it.",
        epilog="* In several processes on request: --accelerate_config zero2 --num_processes 4\n"
        "Arguments of a command: trl-r1v2 <command> --help. More in docs/cli.md.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands, in the usual order", dest="command", required=True, metavar="")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    command, args = parser.parse_args(argv[:1]).command, argv[1:]
    from .recipe import RecipeError, config_of

    try:
        config_of(args)  # before torch is imported, which reads some of the recipe's `env` only once
    except RecipeError as error:
        parser.error(f"{command}: {error}")
    from .parser import parser_of

    module = importlib.import_module(script_of(command))
    parser = parser_of(module.main, prog=f"trl-r1v2 {command}")
    parser.description = inspect.getdoc(module)
    return parser.run(module.main, args, command if may_launch and COMMANDS[command].endswith("*") else None)


if __name__ == "__main__":
    sys.exit(main(may_launch=False))
