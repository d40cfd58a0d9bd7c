# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Training a reward model that sees the image: the wiring.

The model is `trainable_model.py`, the data `reward_collator.py`, scoring with the result `reward_model.py`. Does not
cover where the pairs come from (`sampling/pairs.py`).
"""

import copy
import textwrap
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import is_peft_model
from datasets import Dataset
from transformers import AutoProcessor, ProcessorMixin, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import SequenceClassifierOutput
from trl.trainer.utils import get_config_model_id, global_then_local_main_first

from ..patches.reward import RewardTrainer
from ..prompt_sharing.model import after_common_start
from ..prompt_sharing.trainers import SharedPromptsMixin
from .reward_collator import (
    SWAPPED_ROWS,
    VisionRewardDataCollator,
    check_pairs,
    conversation_lengths,
    too_long_message,
)
from .reward_trainer_config import VisionRewardConfig
from .trainable_model import HEAD, ScalarHeadMixin, load_trainable, set_reward_trainable


logger = get_logger(__name__)


class VisionRewardTrainer(SharedPromptsMixin, RewardTrainer):
    """
    Trainer for scalar reward models that see the image, as [Skywork-VL
    Reward](https://huggingface.co/papers/2505.07263) is trained: a vision-language model whose language-model head
    gives way to a linear layer on the last token's final hidden state, the loss `-log σ(s⁺ - s⁻)` over preference
    pairs, the vision tower frozen.

    The changes w.r.t. [`~trl.RewardTrainer`], which reads text only: the model; pairs go through the processor as
    whole conversations, exactly as [`RewardModel`] scores them; a prompt may pass once per pair; pairs that cannot be
    used are refused before training; optionally, a response with its own images is preferred to the same with others.
    Loss, `margin` column, `center_rewards_coefficient` and metrics are inherited. What it
    saves, [`RewardModel`] loads.

    Args:
        model (`str` or [`~transformers.PreTrainedModel`]): Folder or Hub name of a vision-language model or of a
            reward model to go on with, or a model of [`load_trainable`].
        args ([`VisionRewardConfig`], *optional*): Configuration.
        train_dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): Pairs with `prompt`, `chosen` and
            `rejected`, and `images` or `image` where there are any. The same for `eval_dataset`.
        processing_class ([`~transformers.ProcessorMixin`], *optional*): Processor, by default the model's.
        **kwargs: Other arguments of [`~trl.RewardTrainer`], such as `data_collator` (by default a
            [`VisionRewardDataCollator`]) and `peft_config`, to whose `modules_to_save` the head is added.

    Raises:
        TypeError: If `args` is no [`VisionRewardConfig`], or the processing class is no processor.
        ValueError: If the model has no scalar head, or a setting does not go with the model; the message says why.
        DatasetError: If a pair cannot be used.
    """

    _tag_names = ["trl", "vision-reward-trainer"]
    _name = "Vision Reward"
    _paper = {
        "title": "Skywork-VL Reward: An Effective Reward Model for Multimodal Understanding and Reasoning",
        "id": "2505.07263",
        # docstyle-ignore
        "citation": textwrap.dedent("""\
            @article{wang2025skyworkvlreward,
                title        = {{Skywork-VL Reward: An Effective Reward Model for
                                Multimodal Understanding and Reasoning}},
                author       = {Xiaokun Wang and Peiyu Wang and Jiangbo Pei and Wei Shen and Yi Peng and
                                Yunzhuo Hao and Weijie Qiu and Ai Jian and Tianyidan Xie and Xuchen Song and
                                Yang Liu and Yahui Zhou},
                year         = 2025,
                eprint       = {arXiv:2505.07263},
            }"""),
    }

    def __init__(
        self,
        model,
        args: VisionRewardConfig | None = None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class: ProcessorMixin | None = None,
        *,
        quantization_config=None,
        peft_config=None,
        **kwargs,
    ):
        source = model if isinstance(model, str) else get_config_model_id(model.config)
        if args is None:
            args = VisionRewardConfig(f"{source.split('/')[-1]}-Reward")
        elif not isinstance(args, VisionRewardConfig):
            raise TypeError(
                f"`args` is a {type(args).__name__} but must be a `VisionRewardConfig`, which takes the same "
                "arguments: `from trl_r1v2.rewards import VisionRewardConfig`."
            )
        revision = (args.model_init_kwargs or {}).get("revision") if isinstance(model, str) else None
        if isinstance(model, str):
            model, args = self._load(model, args, quantization_config)
            quantization_config = None
        base = model.get_base_model() if is_peft_model(model) else model
        if not isinstance(base, ScalarHeadMixin):
            raise ValueError(
                f"the model is a {type(base).__name__} without a scalar head. Pass its folder or Hub name, or load it "
                "with `trl_r1v2.rewards.load_trainable`."
            )
        if processing_class is None:
            processing_class = AutoProcessor.from_pretrained(source, revision=revision)
        if not isinstance(processing_class, ProcessorMixin):
            raise TypeError(
                f"`processing_class` is a {type(processing_class).__name__}, but a model that sees images needs its "
                "processor: `AutoProcessor.from_pretrained(path)`."
            )
        if data_collator is None:
            swap_images = args.image_preference_weight > 0
            data_collator = VisionRewardDataCollator(
                processing_class, args.max_length, args.pad_to_multiple_of, swap_images
            )
        elif args.image_preference_weight and not isinstance(data_collator, VisionRewardDataCollator):
            raise ValueError(
                "`image_preference_weight` relies on the order of rows in a batch of `VisionRewardDataCollator`. Use "
                "that one, or set `image_preference_weight=0`."
            )
        self._processor = processing_class
        super().__init__(
            model,
            args,
            data_collator,
            train_dataset,
            eval_dataset,
            processing_class.tokenizer,  # what TRL asks for its padding token
            quantization_config=quantization_config,
            peft_config=None if peft_config is None else _with_head(peft_config),
            **kwargs,
        )
        self.processing_class = self.callback_handler.processing_class = processing_class
        if self.accelerator.num_processes > 1 and args.accelerator_config.even_batches is False:
            raise ValueError(
                "`accelerator_config={'even_batches': False}` leaves the processes with different numbers of pairs in "
                "the last batch, on which TRL's gathering of rewards hangs. Set it to True, the default."
            )
        self._check_saving_under_zero3()
        self.activation_report = set_reward_trainable(self.model, args.trainable)

    def _load(self, path: str, args: VisionRewardConfig, quantization_config):
        """The model, and arguments that no longer speak of loading one."""
        set_seed(args.seed)  # a fresh head is drawn
        settings = dict(args.model_init_kwargs or {})
        if quantization_config is not None:
            settings["quantization_config"] = quantization_config
        if args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
            settings["device_map"] = None
        args = copy.copy(args)
        args.model_init_kwargs = None
        return load_trainable(path, **settings), args

    def _check_saving_under_zero3(self) -> None:
        if not is_deepspeed_zero3_enabled():
            return
        config = self.accelerator.state.deepspeed_plugin.hf_ds_config
        if not config.is_true("zero_optimization.stage3_gather_16bit_weights_on_model_save"):
            raise ValueError(
                "ZeRO-3 would not gather the weights when the model is saved, and the folder would hold neither model "
                "nor head. Set `zero3_save_16bit_model: true` for accelerate, or "
                "`stage3_gather_16bit_weights_on_model_save` in DeepSpeed's own config."
            )

    # Data

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        name = f"{dataset_name} dataset"
        check_pairs(dataset, name, (args.process_index, args.world_size))
        if args.max_length is None:
            return dataset
        if not isinstance(dataset, Dataset):
            if args.too_long == "drop":
                raise ValueError(
                    "`too_long='drop'` counts the pairs it leaves out, and a streamed dataset cannot be counted. "
                    "Filter it yourself, or set `too_long='refuse'`."
                )
            return dataset  # the collator measures every pair
        with global_then_local_main_first():
            lengths = conversation_lengths(dataset, self._processor, args.dataset_num_proc, dataset_name)
        too_long = [index for index, length in enumerate(lengths) if length > args.max_length]
        share = f"{len(too_long)} of {len(lengths)} pairs"
        if too_long and (args.too_long == "refuse" or len(too_long) == len(lengths)):
            place = f"{name}, row {too_long[0]}"
            raise ValueError(
                f"{too_long_message(place, lengths[too_long[0]], args.max_length)} ({share} are too long.)"
            )
        if too_long:
            logger.warning(f"{share} of the {name} are left out: longer than `max_length={args.max_length}`.")
            dataset = dataset.select(sorted(set(range(len(lengths))).difference(too_long)))
        return dataset

    def _set_signature_columns_if_needed(self):
        if self._signature_columns is None:
            self._signature_columns = ["prompt", "chosen", "rejected", "images", "image", "margin"]

    # Loss

    def compute_loss(self, model, inputs: dict[str, Any], return_outputs=False, num_items_in_batch=None):
        swapped_rows = inputs.pop(SWAPPED_ROWS, None)
        num_swapped = 0 if swapped_rows is None else len(swapped_rows)
        num_pairs = (len(inputs["input_ids"]) - num_swapped) // 2
        if self.args.share_prompts:
            model = self._prompt_sharing.wrap_scores(model, num_pairs)
        if not self._has_logged_tokens:
            rows = inputs["input_ids"], inputs["attention_mask"]
            self._log_tokens_of_rows(*rows, after_common_start(*rows, num_pairs))
        if not self.args.image_preference_weight:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

        scores = []

        def score_pairs(**kwargs):
            """The model, as TRL knows it: scores of `[chosen; rejected]`."""
            logits = model(**kwargs).logits
            scores.append(logits.squeeze(-1))
            return SequenceClassifierOutput(logits=logits[: 2 * num_pairs])

        result = super().compute_loss(score_pairs, inputs, return_outputs, num_items_in_batch)
        loss, outputs = result if return_outputs else (result, None)
        gaps = scores[0][swapped_rows] - scores[0][2 * num_pairs :]
        preference = -torch.nn.functional.logsigmoid(gaps).sum() / max(num_swapped, 1)
        loss = loss + self.args.image_preference_weight * preference
        self._log_image_preference(gaps.detach())
        return (loss, outputs) if return_outputs else loss

    def _log_image_preference(self, gaps: torch.Tensor) -> None:
        """Metrics over the swapped rows of all processes, which may hold different numbers of them."""
        totals = torch.stack([(gaps > 0).float().sum(), gaps.sum(), gaps.new_tensor(float(len(gaps)))])
        num_right, total, count = self.accelerator.reduce(totals, reduction="sum").tolist()
        if count:
            metrics = self._metrics["train" if self.model.training else "eval"]
            metrics["image_accuracy"].append(num_right / count)
            metrics["image_margin"].append(total / count)

    # Checkpoints

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_head(resume_from_checkpoint)

    def _load_best_model(self):
        super()._load_best_model()
        self._load_head(self.state.best_model_checkpoint)

    def _load_head(self, folder: str) -> None:
        """The head is in a file of its own, unless the checkpoint is one of PEFT, FSDP or DeepSpeed."""
        model = self.accelerator.unwrap_model(self.model)
        if not (is_peft_model(model) or self.is_fsdp_enabled or self.is_deepspeed_enabled):
            model.load_head(folder)


def _with_head(peft_config):
    """The PEFT config with the head among the modules that are trained and saved in full."""
    peft_config = copy.copy(peft_config)
    peft_config.modules_to_save = [*(set(peft_config.modules_to_save or ()) - {HEAD}), HEAD]
    peft_config.task_type = None  # the model is no longer a causal language model
    return peft_config
