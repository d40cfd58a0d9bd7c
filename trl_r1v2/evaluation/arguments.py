# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Arguments of `trl-r1v2 evaluate`: what is measured, the server that generates, the server that judges.

Does not cover what is done with them (`trl_r1v2.scripts.evaluate`). Pure.
"""

from dataclasses import dataclass, field


GENERATIONS = ("transformers", "server")
ACCURACY_REWARD, FORMAT_REWARD = "trl_r1v2.rewards.accuracy_reward", "trl_r1v2.rewards.format_reward"


@dataclass
class EvaluateArguments:
    """
    Arguments of `trl-r1v2 evaluate`.
    """

    model_name_or_path: str = field(
        metadata={
            "help": "Folder or Hub name of the model and its processor; a folder of PEFT adapters is merged into its base. "
            "With `generation: server`: the name under which the server knows the model."
        }
    )
    output_dir: str = field(metadata={"help": "Folder for metrics, records and rollouts."})
    benchmark: str | None = field(
        default=None,
        metadata={
            "help": "Public benchmark that is measured here: aime_2024, mmmu, mathvista, olympiadbench, mathvision or "
            "mmmu_pro. Its rows, prompts and scoring replace `dataset_name` and `accuracy_reward`. The other four of "
            "R1V2's ten, livecodebench, livebench, ifeval and bfcl, are measured by other harnesses: naming one measures "
            "nothing and prints that harness's command."
        },
    )
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub name of the dataset, as `datasets.load_dataset` takes. With `benchmark`: a copy of its "
            "public data set; unset: the data set itself."
        },
    )
    generation: str = field(
        default="transformers",
        metadata={"help": "What generates: this process, or an OpenAI-style server.", "choices": list(GENERATIONS)},
    )
    label: str | None = field(
        default=None, metadata={"help": "Name of this evaluation in the report. Unset: name of the output folder."}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    dtype: str = field(
        default="auto",
        metadata={"help": "Number format of the weights.", "choices": ["auto", "float32", "bfloat16", "float16"]},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention, as `from_pretrained` takes it."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_split: str | None = field(
        default=None, metadata={"help": "Split to measure on. Unset: `test`, or the benchmark's."}
    )
    max_rows: int | None = field(default=None, metadata={"help": "Measure on the first rows only. Unset: all."})
    check_images: str = field(
        default="all",
        metadata={"help": "Rows whose images are decoded beforehand: 'all', 'none' or a number of rows."},
    )
    num_samples: int = field(
        default=5, metadata={"help": "Sampled runs, k of Pass@1 (R1V2, section 4: 5). 0: greedy only."}
    )
    max_new_tokens: int = field(default=4096, metadata={"help": "Longest response, in tokens."})
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the sampled runs."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus mass of the sampled runs."})
    batch_size: int = field(default=64, metadata={"help": "Responses generated at once."})
    seed: int = field(default=0, metadata={"help": "Seed of the sampled runs."})
    think_open: bool | None = field(
        default=None,
        metadata={
            "help": "Whether the chat template opens `<think>`, as QwQ's and R1V2's do: then a response without "
            "`</think>` has no answer. Unset: looks at the prompts."
        },
    )
    accuracy_reward: str = field(
        default=ACCURACY_REWARD,
        metadata={"help": "Reward function that judges the answer: a dotted path, values in [0, 1] or None."},
    )
    format_reward: str = field(
        default=FORMAT_REWARD,
        metadata={"help": "Reward function that judges the form: a dotted path, values in [0, 1]."},
    )
    hallucination_func: str | None = field(
        default=None,
        metadata={
            "help": "Function (response, column value) → what the response claims without support: a dotted path. "
            "Measured on rows with images."
        },
    )
    hallucination_column: str | None = field(
        default=None, metadata={"help": "Column with what the images hold, for `hallucination_func`."}
    )

    def __post_init__(self):
        from ..checks.rows import parse_check_images

        parse_check_images(self.check_images)
        for name, least in (("num_samples", 0), ("max_new_tokens", 1), ("batch_size", 1)):
            if vars(self)[name] < least:
                raise ValueError(f"`{name}` is {vars(self)[name]}; give at least {least}.")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"`max_rows` is {self.max_rows}; give at least 1, or leave it out for all rows.")
        if self.temperature <= 0:
            raise ValueError(
                f"`temperature` is {self.temperature}; give more than 0 (greedy decoding is always measured)."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` is {self.top_p}; give more than 0 and at most 1.")
        if (self.hallucination_func is None) != (self.hallucination_column is None):
            raise ValueError("`hallucination_func` and `hallucination_column` belong together: set both or neither.")
        if self.generation not in GENERATIONS:
            raise ValueError(f"`generation` is {self.generation!r}; give one of {', '.join(GENERATIONS)}.")
        own = [name for name, value in self._scorers().items() if value != vars(self)[name]]
        if self.think_open is not None and own:
            raise ValueError(
                f"`think_open` sets up this package's own rules, but `{own[0]}` names another function: set it up there, "
                "and leave `think_open` out."
            )
        self._name_dataset()

    @staticmethod
    def _scorers() -> dict[str, str]:
        return {"accuracy_reward": ACCURACY_REWARD, "format_reward": FORMAT_REWARD}

    def _name_dataset(self) -> None:
        """Fill in what a benchmark says about its data, so that the settings name what was measured."""
        if self.benchmark is None:
            if self.dataset_name is None:
                raise ValueError("there is nothing to measure on: set `dataset_name`, or `benchmark`.")
            self.dataset_split = self.dataset_split or "test"
            return
        from .benchmarks import find_adapter

        adapter = find_adapter(self.benchmark, self.model_name_or_path)
        if self.accuracy_reward != ACCURACY_REWARD:
            raise ValueError(
                f"`benchmark: {self.benchmark}` has its own scoring: leave out `accuracy_reward`, or name the data in "
                "`dataset_name` instead of the benchmark."
            )
        self.dataset_name = self.dataset_name or adapter.dataset
        self.dataset_split = self.dataset_split or adapter.split


@dataclass
class ServerArguments:
    """
    The server of `generation: server`.
    """

    server_url: str | None = field(
        default=None, metadata={"help": "Address up to and with the version, for example `http://localhost:8000/v1`."}
    )
    server_api_key_env: str | None = field(
        default=None, metadata={"help": "Environment variable with the server's key. Unset: no key is sent."}
    )
    server_concurrency: int = field(default=16, metadata={"help": "Requests under way at once."})
    server_timeout: float = field(default=3600.0, metadata={"help": "Seconds to wait for one response."})
    server_patience: float = field(
        default=120.0, metadata={"help": "Seconds after a first failure in which a request is sent again."}
    )

    def __post_init__(self):
        _check_server(self, "server")


@dataclass
class JudgeArguments:
    """
    The judge of answers that no rule can decide; without `judge_model` there is none.
    """

    judge_model: str | None = field(default=None, metadata={"help": "Name under which the server knows the judge."})
    judge_url: str | None = field(default=None, metadata={"help": "Address of the judge's server, as `server_url`."})
    judge_api_key_env: str | None = field(
        default=None, metadata={"help": "Environment variable with the key of the judge's server."}
    )
    judge_cache: str | None = field(
        default=None,
        metadata={
            "help": "File of verdicts, which several evaluations may share. Unset: `judge.jsonl` in `output_dir`."
        },
    )
    judge_concurrency: int = field(default=8, metadata={"help": "Requests under way at once."})
    judge_max_tokens: int = field(default=1024, metadata={"help": "Longest reply of the judge, reasoning included."})
    judge_timeout: float = field(default=300.0, metadata={"help": "Seconds to wait for one verdict."})
    judge_patience: float = field(
        default=120.0, metadata={"help": "Seconds after a first failure in which a request is sent again."}
    )

    def __post_init__(self):
        _check_server(self, "judge")
        if (self.judge_model is None) != (self.judge_url is None):
            raise ValueError("`judge_model` and `judge_url` belong together: set both or neither.")
        if self.judge_max_tokens < 1:
            raise ValueError(f"`judge_max_tokens` is {self.judge_max_tokens}; give at least 1.")


def _check_server(arguments, prefix: str) -> None:
    values = vars(arguments)
    if values[f"{prefix}_concurrency"] < 1:
        raise ValueError(f"`{prefix}_concurrency` is {values[f'{prefix}_concurrency']}; give at least 1.")
    for name in ("timeout", "patience"):
        if values[f"{prefix}_{name}"] <= 0:
            raise ValueError(f"`{prefix}_{name}` is {values[f'{prefix}_{name}']} s; give more than 0.")
    url = values[f"{prefix}_url"]
    if url is not None and not url.startswith(("http://", "https://")):
        raise ValueError(f"`{prefix}_url` is {url!r}; write it as http://host:port/v1.")
