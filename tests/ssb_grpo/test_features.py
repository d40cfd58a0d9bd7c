# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Features of TRL that the buffer has to get along with, through `trainer.train()`."""

import importlib.util

import pytest
import torch
from peft import LoraConfig
from transformers import AutoTokenizer, BitsAndBytesConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

from tests.support.ssb_probes import fated, logged, probed
from tests.support.ssb_runs import SSBGRPOTrainer, assert_identical, losses, make_trainer, text_dataset


FATES = {3: 0.0, 4: 1.0, 5: 1.0}


@pytest.fixture(scope="module")
def moe_path(text_model_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moe")
    tokenizer = AutoTokenizer.from_pretrained(text_model_path)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    experts = {"num_experts": 4, "num_experts_per_tok": 2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = Qwen3MoeConfig(vocab_size=len(tokenizer), **sizes, **heads, **experts, **ids)
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return str(folder)


def test_router_auxiliary_loss(moe_path, tmp_path):
    """Replayed rows, which are in the batch like any others, count in it."""
    trainer = make_trainer(
        SSBGRPOTrainer,
        moe_path,
        tmp_path,
        text_dataset(),
        fated(FATES),
        shuffle_dataset=False,
        router_aux_loss_coef=0.1,
    )
    trainer.train()
    assert trainer.aux_loss_enabled and logged(trainer, "ssb/replayed_rows")[:3] == [0, 4, 8]
    assert all(value > 0 for value in logged(trainer, "aux_loss"))


def test_another_group_size_in_evaluation(text_model_path, tmp_path, monkeypatch):
    class WithEval(SSBGRPOTrainer):
        def __init__(self, *args, train_dataset, **kwargs):
            rows = train_dataset.select(range(4))
            super().__init__(*args, train_dataset=train_dataset, eval_dataset=rows, **kwargs)

    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES), cls=WithEval, eval_strategy="steps",
        eval_steps=1, num_generations_eval=2,
    )  # fmt: skip
    trainer.train()
    assert probe.num_replayed == [0, 4, 8] and len(logged(trainer, "eval_reward")) == 3
    probe.assert_gradients(3)


def test_torch_compile(text_model_path, tmp_path):
    settings = {"shuffle_dataset": False, "max_steps": 3}
    runs = []
    for name in ("eager", "compiled"):
        trainer = make_trainer(
            SSBGRPOTrainer, text_model_path, tmp_path / name, text_dataset(), fated(FATES), **settings,
            torch_compile=name == "compiled", **({"torch_compile_backend": "aot_eager"} if name == "compiled" else {}),
        )  # fmt: skip
        trainer.train()
        runs.append((losses(trainer), logged(trainer, "ssb/replayed_rows")))
    assert runs[0][1] == runs[1][1] == [0, 4, 8]
    assert runs[1][0] == pytest.approx(runs[0][0], abs=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_qlora(text_model_path, tmp_path, monkeypatch):
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES), model=text_model_path, peft_config=lora,
        quantization_config=quantized, beta=0.1, learning_rate=0.1,
    )  # fmt: skip
    trainer.train()
    assert type(trainer.model.get_base_model().model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(3, tolerance=1e-2)  # TRL keeps the adapters of quantized models in bfloat16
    probe.assert_buffer()


def test_fp16_on_a_cpu_is_float32(text_model_path, tmp_path):
    """Where there is no GPU, accelerate leaves half precision off."""
    trainers = []
    for fp16 in (False, True):
        folder, data = tmp_path / str(fp16), text_dataset()
        trainers.append(make_trainer(SSBGRPOTrainer, text_model_path, folder, data, fated(FATES), fp16=fp16))
        trainers[-1].train()
    assert_identical(*trainers)
