# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`trl-r1v2 <command> --config recipe.yaml`: which commands there are, and how one is started.

Covers the table of commands, the help page and the exit code. Does not cover what a command does (`trl_r1v2.scripts`),
its arguments (`cli/parser.py`) nor several processes (`cli/launch.py`). Imports nothing heavy at its top: `--help` and a
misspelt command answer at once.
"""

import difflib
import importlib
import inspect
import os
import sys
from dataclasses import dataclass

from .terminal import print_page


@dataclass(frozen=True)
class Command:
    """
    One command of the table.

    Args:
        module (`str`):
            Name of the script in `trl_r1v2.scripts`.
        group (`str`):
            Heading under which the help page lists it.
        help (`str`):
            What it does, in one line.
        launched (`bool`, *optional*, defaults to `False`):
            Whether `accelerate launch` may start it in several processes.
    """

    module: str
    group: str
    help: str
    launched: bool = False


COMMANDS = {
    "run": Command("run", "Pipelines", "run the stages of a pipeline recipe in order, resuming after the last finished one"),
    "compose": Command("compose", "Build", "vision tower, adapter and language model → one InternVL checkpoint"),
    "convert": Command("convert", "Build", "published checkpoint layout ↔ transformers' own"),
    "align": Command("align", "Train", "supervised start of a composed model on demonstrations", True),
    "filter-prompts": Command("filter_prompts", "Train", "keep the prompts that the model answers right and wrong", True),
    "pairs": Command("pairs", "Train", "sample and score responses, and build preference pairs for MPO", True),
    "calibrate": Command("calibrate", "Train", "sweep reward thresholds over the scored responses of `pairs`"),
    "reward": Command("reward", "Train", "a scalar reward model that sees the image, from preference pairs", True),
    "mpo": Command("mpo", "Train", "Mixed Preference Optimization: preference, quality and generation loss", True),
    "grpo": Command("grpo", "Train", "GRPO with the Selective Sample Buffer", True),
    "evaluate": Command("evaluate", "Measure", "greedy accuracy, Pass@1 over k runs, format and hallucination rate"),
    "report": Command("report", "Measure", "one HTML page with tables and plots from evaluations and training logs"),
    "serve-reward": Command("serve_reward", "Serve", "a scalar reward model over HTTP, for the hybrid reward"),
}  # fmt: skip

_USUAL_ORDER = ("compose", "align", "filter-prompts", "reward", "pairs", "mpo", "grpo", "evaluate", "report")


def help_text() -> str:
    """Return the page that `trl-r1v2 --help` prints."""
    lines = [
        "usage: trl-r1v2 <command> --config recipe.yaml [--key value ...] [accelerate launch options]",
        "",
        "Hybrid reinforcement learning of vision-language reasoning models, the Skywork R1V2 method, on TRL.",
        "A recipe is a YAML file of the command's arguments; the command line overrides it.",
    ]
    width = max(len(name) for name in COMMANDS) + 2
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items() if command.group == group]
    order = " → ".join(name for name in _USUAL_ORDER if name in COMMANDS)
    launched = ", ".join(name for name, command in COMMANDS.items() if command.launched)
    lines += [
        "",
        f"Usual order:  {order}",
        "              `run` does them all from one pipeline recipe. Every stage can be left out.",
        "",
        "Examples:",
        "  trl-r1v2 run --config recipes/digits/pipeline.yaml",
        "  trl-r1v2 grpo --config recipes/digits/grpo.yaml --learning_rate 5e-5",
        "  trl-r1v2 grpo --config grpo.yaml --accelerate_config zero2 --num_processes 4",
        "",
        f"Started in several processes on request: {launched}. All others run in one process.",
        "Arguments of a command:  trl-r1v2 <command> --help",
        "Without the launcher:    python -m trl_r1v2.scripts.<command> --config recipe.yaml",
        "Documentation:           docs/cli.md and one page for each feature in docs/",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv (`list[str]`, *optional*, defaults to `sys.argv[1:]`):
            Command line without the program's name.

    Returns:
        `int`: Exit code: 0, or 2 for a command line or recipe that cannot be used, or the failed process's own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print_page(help_text())
        return 0
    if argv[0] == "--version":
        from .. import __version__

        print(__version__)
        return 0
    name, args = argv[0], argv[1:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name.replace("_", "-"), COMMANDS, n=3, cutoff=0.5)
        advice = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(COMMANDS)}"
        return _fail("trl-r1v2", f"unknown command {name!r}; {advice} (`trl-r1v2 --help` says what each does)")
    return run_command(name, args)


def run_command(name: str, args: list[str]) -> int:
    """
    Run one command of the table.

    Args:
        name (`str`):
            Name in `COMMANDS`.
        args (`list[str]`):
            Its command line.

    Returns:
        `int`: Exit code, as in [`main`].
    """
    from subprocess import CalledProcessError

    from ..checks.rows import DatasetError
    from ..vlm.errors import CheckpointError
    from .recipe import RecipeError

    command, prog = COMMANDS[name], f"trl-r1v2 {name}"
    try:
        _apply_environment(args)
        module = importlib.import_module(f"trl_r1v2.scripts.{command.module}")
        parser = module.make_parser(prog=prog)
        parser.description = f"{command.help[0].upper()}{command.help[1:]}.\n\n{inspect.getdoc(module)}"
        *outputs, recipe_strings, command_strings = parser.parse_args_and_config(
            args, return_remaining_strings=True, separate_remaining_strings=True
        )
        if not command.launched:
            if recipe_strings or command_strings:
                given = " ".join(recipe_strings + command_strings)
                raise RecipeError(f"`{name}` runs in one process: remove the launch options {given}.")
            module.main(*outputs)
            return 0

        from .launch import launch, needs_launcher, without

        if needs_launcher(recipe_strings + command_strings):
            script = f"trl_r1v2.scripts.{command.module}"
            launch(script, recipe_strings, command_strings, without(args, command_strings))
        else:
            module.main(*outputs)
    except (RecipeError, DatasetError, CheckpointError) as error:
        return _fail(prog, str(error))
    except CalledProcessError as error:
        # the script's own process has already said what went wrong
        return error.returncode
    return 0


def _apply_environment(args: list[str]) -> None:
    """Set the recipe's `env` before torch is imported, which reads some variables only once."""
    from .recipe import config_path, join_config_option, read_recipe

    path = config_path(join_config_option(args))
    if path is not None:
        os.environ.update({key: str(value) for key, value in read_recipe(path).get("env", {}).items()})


def _fail(prog: str, message: str) -> int:
    print(f"{prog}: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
