# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What the package relies on in TRL, transformers, accelerate and torch, beyond their public interface.

When an upgrade breaks one of these, the assumption named in the test's docstring has to be looked at again.
"""

import ast
import inspect
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import trl
from datasets import Dataset
from packaging.version import Version
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Qwen2Config,
    Trainer,
)
from transformers.masking_utils import create_causal_mask
from trl import GRPOConfig, GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer
from trl.trainer.utils import (
    RepeatSampler,
    nanstd,
    shuffle_sequence_dict,
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from trl_r1v2 import SSBGRPOTrainer
from trl_r1v2.images.prompt_images import VISUAL_FIELDS
from trl_r1v2.ssb_grpo.rows import COMPLETION_FIELDS, OTHER_FIELDS, SEQUENCE_FIELDS


def contract_trainer(model_path, output_dir) -> GRPOTrainer:
    return GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(model_path),
        lambda completions, **kwargs: [0.0] * len(completions),
        GRPOConfig(
            output_dir=str(output_dir), use_cpu=True, bf16=False, report_to="none", loss_type="grpo", logging_steps=1
        ),
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": "n"}]]}),
        processing_class=AutoTokenizer.from_pretrained(model_path, padding_side="left"),
    )


def mixed_messages(image):
    text = {"type": "text", "text": "add"}
    return [
        [{"role": "user", "content": [{"type": "image", "image": image}, text]}],
        [{"role": "user", "content": [text]}],
    ]


def tree(function) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_versions():
    assert trl.__version__.startswith("1.16.")
    assert Version("5.10.4") <= Version(transformers.__version__) < Version("6")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_generate", ["self", "prompts"]),
        (
            "_generate_single_turn",
            ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
        ),
        ("_compute_loss", ["self", "model", "inputs"]),
        ("_save_checkpoint", ["self", "model", "trial"]),
        ("_load_optimizer_and_scheduler", ["self", "checkpoint"]),
        ("_set_signature_columns_if_needed", ["self"]),
        ("_get_train_sampler", ["self", "dataset"]),
        ("train", ["self", "resume_from_checkpoint", "trial", "ignore_keys_for_eval"]),
        (
            "_get_dataloader",
            ["self", "dataset", "description", "batch_size", "sampler_fn", "is_training", "dataloader_key"],
        ),
    ],
)
def test_overridden_methods_keep_their_parameters(name, expected):
    assert parameters(getattr(GRPOTrainer, name)) == expected
    assert getattr(SSBGRPOTrainer, name) is not getattr(GRPOTrainer, name)


def test_constructor_takes_model_rewards_and_args_first():
    assert parameters(GRPOTrainer.__init__)[:4] == ["self", "model", "reward_funcs", "args"]


def test_log_probability_forward_takes_every_field_by_name():
    """The trainer passes fields of a batch on under their own names, and reads log-probabilities from place 0."""
    names = parameters(GRPOTrainer._get_per_token_logps_and_entropies)
    assert names[:5] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]
    assert {"batch_size", "num_images", "num_tiles", *VISUAL_FIELDS, *SEQUENCE_FIELDS} <= set(names)


def test_every_key_of_a_batch_is_known():
    """Whatever TRL puts into its output, `rows.py` has to know how to carry it."""
    body = tree(GRPOTrainer._generate_and_score_completions)
    keys = set()
    for node in ast.walk(body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "output":
            keys |= {key.value for key in node.value.keys}
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "output":
            keys.add(node.slice.value)
    assert {"prompt_ids", "completion_ids", "importance_sampling_ratio", "num_tiles", "tool_mask"} <= keys
    assert keys <= OTHER_FIELDS | set(COMPLETION_FIELDS) | set(SEQUENCE_FIELDS) | set(VISUAL_FIELDS)


def test_loss_reads_nothing_that_is_not_carried():
    """Keys that `_compute_loss` looks up in its inputs are those of the batch."""
    keys = set()
    for node in ast.walk(tree(GRPOTrainer._compute_loss)):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "inputs":
            keys.add(node.slice.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "inputs":
                keys.add(node.args[0].value)
    assert {"old_per_token_logps", "ref_per_token_logps", "completion_mask"} <= keys
    assert keys <= OTHER_FIELDS | set(COMPLETION_FIELDS) | set(SEQUENCE_FIELDS) | set(VISUAL_FIELDS)


def test_loss_reads_behaviour_after_its_forward():
    """
    Between `_get_per_token_logps_and_entropies` and `inputs.get("old_per_token_logps")` the trainer slips in the
    behaviour log-probabilities of this micro-batch.
    """
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._compute_loss))
    forward = source.index("self._get_per_token_logps_and_entropies(")
    read = source.index('inputs.get("old_per_token_logps")')
    assert forward < read and source.count('old_per_token_logps"') == 1
    assert source.count("self._get_per_token_logps_and_entropies(") == 1


def test_absent_behaviour_means_the_policy_itself(text_model_path, tmp_path):
    """Without `old_per_token_logps` a row counts as on-policy: what a replayed row must not be taken for."""
    trainer = contract_trainer(text_model_path, tmp_path)
    ids = torch.tensor([[7, 8, 9]])
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": torch.ones_like(ids),
        "completion_ids": ids,
        "completion_mask": torch.ones_like(ids),
        "advantages": torch.tensor([2.0]),
        "num_items_in_batch": torch.tensor(3),
    }
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    assert trainer._compute_loss(trainer.model, dict(inputs)).item() == pytest.approx(-2.0)
    logps, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, torch.cat([ids, ids], 1), torch.ones(1, 6, dtype=torch.int64), 3
    )
    old = {"old_per_token_logps": logps.detach() - 0.1}  # ratio e^0.1, inside the clip range
    assert trainer._compute_loss(trainer.model, inputs | old).item() == pytest.approx(-2.0 * np.exp(0.1), rel=1e-5)


def test_rewards_are_judged_before_extra_columns_are_cleared():
    """`_calculate_rewards` is called before `_pending_extra_logs.clear()`, and its rows are those of all processes."""
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._generate_and_score_completions))
    assert source.index("self._calculate_rewards(") < source.index("self._pending_extra_logs.clear()")
    assert source.count("self._calculate_rewards(") == 1
    assert "self.accelerator.process_index * len(prompts)" in source
    assert (
        inspect.getsource(inspect.unwrap(GRPOTrainer._calculate_rewards)).rstrip().endswith("return rewards_per_func")
    )
    assert "rewards_per_func = gather(rewards_per_func)" in inspect.getsource(grpo_trainer)


def test_a_generation_is_shuffled_and_split_after_it_is_returned():
    """
    So rows can still be replaced in the returned batch, and every list and tensor with a first dimension goes along.
    """
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._prepare_inputs))
    steps = [
        "self._generate_and_score_completions(generation_batch)",
        "split_pixel_values_by_grid(generation_batch)",
        "shuffle_sequence_dict(generation_batch)",
        "split_tensor_dict(generation_batch, self.args.steps_per_generation)",
        "unsplit_pixel_values_by_grid(batch)",
    ]
    places = [source.index(step) for step in steps]
    assert places == sorted(places)
    batch = {"ids": torch.arange(8).view(4, 2), "rows": [0, 1, 2, 3], "count": torch.tensor(5), "flag": torch.ones(4)}
    shuffled = shuffle_sequence_dict(batch)
    assert shuffled["ids"][:, 0].tolist() == [2 * row for row in shuffled["rows"]] and shuffled["count"] == 5
    halves = split_tensor_dict(shuffled, 2)
    assert [half["rows"] for half in halves] == [shuffled["rows"][:2], shuffled["rows"][2:]]
    assert all(half["count"] == 5 for half in halves)


def test_split_and_unsplit_of_tiles():
    """`num_tiles` splits pixels by row, a row without images gets none, and unsplitting gives the same tensor back."""
    pixels = torch.rand(4, 3, 2, 2)
    batch = {"pixel_values": pixels, "num_images": [1, 0, 2], "num_tiles": [2, 0, 2]}
    split = split_pixel_values_by_grid(batch)
    assert [len(part) for part in split["pixel_values"]] == [2, 0, 2]
    assert torch.equal(unsplit_pixel_values_by_grid(split)["pixel_values"], pixels)
    flat = split_pixel_values_by_grid({"pixel_values": pixels, "num_images": [1, 0, 3]})
    assert [len(part) for part in flat["pixel_values"]] == [1, 0, 3]
    # Neither tiles nor one entry an image: left as it is, the padded layout that the buffer refuses.
    padded = {"pixel_values": torch.rand(2, 3, 3, 2, 2), "num_images": [1, 2]}
    assert split_pixel_values_by_grid(padded)["pixel_values"] is padded["pixel_values"]


def test_split_and_unsplit_of_grids():
    pixels, grid = torch.rand(10, 5), torch.tensor([[1, 2, 2], [1, 1, 2], [1, 2, 2]])
    split = split_pixel_values_by_grid({"pixel_values": pixels, "image_grid_thw": grid, "num_images": [2, 0, 1]})
    assert [len(part) for part in split["pixel_values"]] == [6, 0, 4]
    assert [len(part) for part in split["image_grid_thw"]] == [2, 0, 1]
    merged = unsplit_pixel_values_by_grid(split)
    assert torch.equal(merged["pixel_values"], pixels) and torch.equal(merged["image_grid_thw"], grid)


def test_advantages_use_bessel_and_an_offset():
    """`prefill.py` and the tests repeat this formula."""
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._generate_and_score_completions))
    assert "advantages = advantages / (std_rewards + 1e-4)" in source
    rewards = torch.tensor([[1.0, 2.0, 4.0, float("nan")]])
    assert nanstd(rewards, dim=1).item() == pytest.approx(np.std([1, 2, 4], ddof=1))


def test_repeat_sampler_attributes():
    """`patches/prompt_order_after_resume.py` makes its sampler from one that TRL built."""
    assert parameters(RepeatSampler.__init__) == [
        "self",
        "data_source",
        "mini_repeat_count",
        "batch_size",
        "repeat_count",
        "shuffle",
        "seed",
    ]
    sampler = RepeatSampler(range(5), 2, 3, 4, True, 7)
    for name in ("data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed", "num_samples"):
        assert name in vars(sampler)


# ---- Checkpoints ----


def test_trainer_state_is_written_last():
    """`trainer_state.json` vouches for a checkpoint: nothing but the push and the rotation comes after it."""
    source = inspect.getsource(Trainer._save_checkpoint)
    state = source.index("self.state.save_to_json(")
    for step in (
        "self.save_model(",
        "self._save_optimizer_and_scheduler(",
        "self._save_scaler(",
        "self._save_rng_state(",
    ):
        assert source.index(step) < state
    after = source[state:]
    assert "_push_from_checkpoint" in after and "rotate_checkpoints(" in after
    calls = [
        node.func.attr
        for node in ast.walk(tree(Trainer._save_checkpoint))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr.startswith(("_save", "save"))
    ]
    assert sorted(calls) == [
        "_save_optimizer_and_scheduler",
        "_save_rng_state",
        "_save_scaler",
        "save_model",
        "save_to_json",
    ]


def test_the_epoch_is_known_when_its_order_is_drawn():
    """`state.epoch` is whole at the end of an epoch, and a resumed run has it before it goes through the data."""
    source = inspect.getsource(Trainer)
    assert source.count("self.state.epoch = epoch + (step + 1) / steps_in_epoch") == 1
    assert "self.state = TrainerState.load_from_json(" in inspect.getsource(Trainer._init_training_state)
    loop = inspect.getsource(Trainer._inner_training_loop)
    assert loop.index("self._init_training_state(") < loop.index(
        "for epoch in range(epochs_trained, num_train_epochs)"
    )


def test_rows_come_through_a_collator_that_does_nothing():
    """So the mended trainer's collator can bring images to RGB, and rows that are read again go through it too."""
    assert "data_collator=identity," in inspect.getsource(GRPOTrainer.__init__)


def test_a_resumed_run_starts_a_generation():
    """Exact resuming holds at generation boundaries only because these start afresh."""
    source = inspect.getsource(GRPOTrainer.__init__)
    assert "self._step = 0" in source and "self._buffered_inputs = None" in source


# ---- Text among images ----


def test_image_processors_refuse_none(internvl_path):
    """TRL marks a text row by `None`; the trainer hands on an empty list instead."""
    processor = AutoProcessor.from_pretrained(internvl_path)
    image = torch.randint(0, 256, (28, 28, 3), dtype=torch.uint8).numpy()
    texts = [processor.apply_chat_template(messages, tokenize=False) for messages in mixed_messages(image)]
    with pytest.raises((TypeError, ValueError, AttributeError)):
        processor(images=[[image], None], text=texts, padding=True, return_tensors="pt")
    assert len(processor(images=[[image], []], text=texts, padding=True, return_tensors="pt")["pixel_values"]) == 1


def test_generate_returns_images_last_but_one(internvl_path):
    """The trainer replaces `None` in that place of the tuple."""
    [returned] = [node for node in ast.walk(tree(GRPOTrainer._generate)) if isinstance(node, ast.Return)]
    assert [name.id for name in returned.value.elts][-2:] == ["images", "tool_images"]
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._tokenize_prompts))
    assert "images.append(prompt_images if prompt_images else None)" in source


def test_images_are_logged_last_and_by_the_processes_alone_that_have_some():
    """So the trainer switches this off and gathers them itself, after the prompts that they lie beside."""
    source = inspect.getsource(inspect.unwrap(GRPOTrainer._generate_and_score_completions))
    statement = (
        "if images is not None and self.log_multimodal:\n"
        '            self._logs["images"].extend(gather_object(images))'
    )
    assert source.count("log_multimodal") == source.count(statement) == 1
    assert source.index('self._logs["prompt"].extend(') < source.index(statement)
    assert "if images is not None and all(img_list == [] for img_list in images):" in source
    assert inspect.getsource(GRPOTrainer).count('"images": deque(maxlen=args.generation_batch_size)') == 1


def test_vision_towers_fail_on_zero_tiles(internvl_path):
    """A text-only micro-batch of a mixed batch arrives with zero tiles, which the trainer takes away."""
    model = AutoModelForImageTextToText.from_pretrained(internvl_path)
    ids = torch.tensor([[7, 8, 9]])
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        model(input_ids=ids, pixel_values=torch.zeros(0, 3, 28, 28))
    assert model(input_ids=ids).logits.shape[1] == 3


# ---- vLLM ----


def test_what_is_wrapped_of_the_vllm_engine():
    """`patches/vllm_image_tokens.py` and `patches/vllm_encoder_cache.py` wrap these."""
    names = parameters(VLLMGeneration.generate)
    assert names == ["self", "prompts", "images", "num_generations", "profiler"]
    assert parameters(VLLMGeneration.sync_weights) == ["self"]
    source = inspect.getsource(VLLMGeneration._init_vllm)
    assert source.count("self.llm = LLM(") == 1 and 'logprobs_mode="processed_logprobs"' in source
    source = inspect.getsource(VLLMGeneration.generate)
    assert "generation_kwargs.update(self.generation_kwargs)" in source
    assert "all_prompt_ids = [output.prompt_token_ids for output in all_outputs]" in source
    [returned] = [node for node in ast.walk(tree(GRPOTrainer._tokenize_prompts)) if isinstance(node, ast.Return)][-1:]
    assert [name.id for name in returned.value.elts] == ["prompt_ids", "images", "multimodal_fields"]


def test_upstream_leaves_image_features_in_the_engine():
    """Once TRL resets them itself, `patches/vllm_encoder_cache.py` can go."""
    assert "reset_encoder_cache" not in inspect.getsource(VLLMGeneration.sync_weights)


# ---- Shared prompts ----


def test_what_prompt_sharing_relies_on():
    """`prompt_sharing/` swaps the model that these call, and the micro-batches that TRL has made."""
    source = inspect.getsource(GRPOTrainer._get_per_token_logps_and_entropies)
    assert "outputs = model(**model_inputs, labels=labels, fused_lm_head=True)" in source
    assert source.count("model(") == 1
    assert "self._buffered_inputs = [unsplit_pixel_values_by_grid" in inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "_entropy_bonus_enabled" in inspect.getsource(GRPOTrainer.__init__)
    assert inspect.getsource(trl.DPOTrainer.compute_ref_log_probs).count("model(**model_kwargs") == 1


def test_masks_of_four_dimensions_are_returned_as_they_are():
    """A packed forward hands in an empty one, so that nobody builds a mask of all tokens by all tokens."""
    mask = torch.empty(1, 1, 0, 0)
    made = create_causal_mask(Qwen2Config(attn_implementation="sdpa"), torch.zeros(1, 4, 8), mask, None)
    assert made is mask


# ---- Everything private ----


PACKAGE = Path(__file__).parents[1] / "trl_r1v2"
# The standard library's own, which its documentation names or which every supported Python has.
OF_PYTHON = {"_actions", "_base_executable", "_replace"}


def private_names_of_others() -> set[str]:
    """Names with a leading underscore that the package reads or overrides and that are not its own."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    inherited = {node.name for node in defined if f"super().{node.name}(" in ast.unparse(node)}
    own = {node.name for node in defined} | {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {name.name for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
    foreign = (used - own) | inherited
    return {name for name in foreign if name.startswith("_") and not name.startswith("__")} - OF_PYTHON


def test_every_private_name_is_named_here():
    """A new reliance needs its test in this file: what would have to be looked at again, were the name gone."""
    written = set(re.findall(r"\w+", Path(__file__).read_text(encoding="utf-8")))
    assert private_names_of_others() <= written


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Trainer._get_output_dir, ["self", "trial"]),  # where the buffer's and the reward shift's states go
        (Trainer._issue_warnings_after_load, ["self", "load_result"]),
        (Trainer._load_best_model, ["self"]),
        (Trainer._load_from_checkpoint, ["self", "resume_from_checkpoint", "model"]),
        (Trainer._remove_unused_columns, ["self", "dataset", "description"]),
        (trl.DPOTrainer._prepare_dataset, ["self", "dataset", "processing_class", "args", "dataset_name"]),
        (trl.DPOTrainer._precompute_ref_logps, ["self", "dataset", "name", "batch_size"]),
        (trl.SFTTrainer._prepare_dataset, ["self", "dataset", "processing_class"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_private_methods_keep_their_parameters(method, expected):
    assert parameters(method)[: len(expected)] == expected


@pytest.mark.parametrize("trainer_class", [GRPOTrainer, trl.DPOTrainer, trl.SFTTrainer, trl.RewardTrainer])
def test_private_attributes_of_trainers(trainer_class):
    """Metrics of a step; whether model and data have images; the tokenizer inside of a processor."""
    names = {"_metrics"} if trainer_class is trl.RewardTrainer else {"_metrics", "_is_vlm", "_tokenizer"}
    names |= {"_is_vision_dataset"} if trainer_class in (trl.DPOTrainer, trl.SFTTrainer) else set()
    source = inspect.getsource(trainer_class.__init__)
    assert all(f"self.{name} = " in source for name in names)


def test_private_attributes_of_models():
    """
    Parameters that checkpoints may lack; hooks, by whose absence a gathered ZeRO-3 tower is known; the count of
    changes in place, by which the vision cache sees that weights have moved.
    """
    assert {"_keys_to_ignore_on_save", "_keys_to_ignore_on_load_missing"} <= vars(transformers.PreTrainedModel).keys()
    assert torch.nn.Module()._forward_pre_hooks == {}
    weights = torch.zeros(1)
    before = weights._version
    assert weights.add_(1)._version == before + 1


def test_what_the_command_line_takes_from_the_launchers():
    """`scripts/parser.py` reads the options of accelerate's launcher, and TRL's short names of its configurations."""
    from accelerate.commands.launch import launch_command_parser
    from trl.cli.accelerate_config import resolve_accelerate_config_argument

    options = {option for action in launch_command_parser()._actions for option in action.option_strings}
    assert {"--num_processes", "--config_file", "--module", "--multi_gpu"} <= options
    [flag, path] = resolve_accelerate_config_argument(["--accelerate_config", "zero2"])
    assert flag == "--config_file" and path.endswith("zero2.yaml")


def test_fields_of_arguments():
    """`HfArg` makes a dataclass field of help and default, and TRL's parser takes a recipe's values as defaults."""
    from dataclasses import dataclass

    from transformers.hf_argparser import HfArg

    @dataclass
    class Arguments:
        steps: int = HfArg(default=1, help="How many.")

    [field] = vars(Arguments)["__dataclass_fields__"].values()
    assert (field.default, field.metadata["help"]) == (1, "How many.")
    parser = trl.TrlParser((Arguments,))
    parser.set_defaults_with_config(steps=3)
    assert parser.parse_args_into_dataclasses([], return_remaining_strings=True)[0].steps == 3
