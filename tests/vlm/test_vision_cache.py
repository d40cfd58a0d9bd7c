# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The cache runs the tower on distinct tiles only, changes no result, and steps aside where reuse would be wrong."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from tests.support import ROOT, tiny_parts
from trl_r1v2.vlm.activation import set_trainable
from trl_r1v2.vlm.compose import compose_vlm
from trl_r1v2.vlm.vision_cache import VisionCache, find_tower
from trl_r1v2.vlm.vision_cache_callback import VisionCacheArguments, VisionCacheCallback


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    tiny_parts.save_vision(root / "vision")
    tiny_parts.save_llm(root / "llm")
    compose_vlm(str(root / "vision"), str(root / "llm"), str(root / "out"), max_patches=4, progress=False)
    return root / "out"


@pytest.fixture
def model(folder):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    set_trainable(model, "llm+adapter")
    return model


def tiles(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(seed))


class Counter:
    """Tiles that pass the tower's patch embedding, which no cached forward reaches."""

    def __init__(self, model):
        self.sizes: list[int] = []
        find_tower(model).embeddings.patch_embeddings.register_forward_pre_hook(
            lambda module, args: self.sizes.append(len(args[0]))
        )

    @property
    def total(self) -> int:
        return sum(self.sizes)


def test_each_distinct_tile_is_encoded_once(model):
    tower, counter = find_tower(model), Counter(model)
    pixels = tiles(5)
    expected = tower(pixels).last_hidden_state
    counter.sizes.clear()
    with VisionCache().installed(model) as cache:
        repeated = pixels[[0, 1, 0, 2, 1]]
        torch.testing.assert_close(tower(repeated).last_hidden_state, expected[[0, 1, 0, 2, 1]])
        torch.testing.assert_close(tower(pixels).last_hidden_state, expected)
        output = tower(pixels[[4, 0]], return_dict=True)
        torch.testing.assert_close(output.last_hidden_state, expected[[4, 0]])
        assert type(output).__name__ == "InternVLVisionModelOutputWithPooling"
        assert counter.sizes == [3, 2]
        assert cache.metrics()["vision_cache/encoded"] == 5 and cache.metrics()["vision_cache/tiles"] == 12
    tower(pixels)
    assert counter.sizes == [3, 2, 5] and "forward" not in vars(tower)


def test_selected_hidden_states_are_kept_with_their_selection(model):
    """What InternVL and LLaVA ask for: some hidden states by index, the last of which is no second copy."""
    tower, counter = find_tower(model), Counter(model)
    everything = tower(tiles(2), output_hidden_states=True).hidden_states
    if tower(tiles(2), output_hidden_states=-1).hidden_states[0] is not None:
        pytest.skip("this transformers gives all hidden states or none")
    counter.sizes.clear()
    with VisionCache().installed(model) as cache:
        for _ in range(2):
            last = tower(tiles(2), output_hidden_states=-1)
            assert last.hidden_states[:-1] == (None, None) and last.hidden_states[-1] is last.last_hidden_state
            torch.testing.assert_close(last.hidden_states[-1], everything[-1])
        assert counter.sizes == [2] and cache.num_bytes == everything[-1].nbytes
        for _ in range(2):
            two = tower(tiles(2), output_hidden_states=[0, -2])
            torch.testing.assert_close(two.hidden_states[0], everything[0])
            torch.testing.assert_close(two.hidden_states[1], everything[1])
            assert two.hidden_states[2] is None
        assert counter.sizes == [2, 2]


def test_results_are_new_tensors(model):
    tower = find_tower(model)
    with VisionCache().installed(model):
        first = tower(tiles(2)).last_hidden_state
        kept = first.clone()
        first.zero_()
        assert torch.equal(tower(tiles(2)).last_hidden_state, kept)


def test_loss_and_gradients_equal_those_without(folder, model):
    processor = AutoProcessor.from_pretrained(folder)
    image = Image.fromarray((tiles(1)[0].permute(1, 2, 0) * 50 + 128).clamp(0, 255).byte().numpy())
    inputs = processor(
        images=[image, image], text=["<IMG_CONTEXT> a", "b <IMG_CONTEXT>"], padding=True, return_tensors="pt"
    )

    def loss_and_gradients():
        model.zero_grad()
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    loss, gradients = loss_and_gradients()
    assert any("multi_modal_projector" in name for name in gradients)
    with VisionCache().installed(model) as cache:
        for _ in range(2):
            cached_loss, cached_gradients = loss_and_gradients()
            assert cached_loss == pytest.approx(loss, abs=1e-6)
            assert cached_gradients.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(cached_gradients[name], gradient, rtol=1e-4, atol=1e-6)
        assert cache.num_encoded == 1


def run_grpo(folder, output_dir, cache, counters, callbacks=()):
    """Four steps of stock GRPO with a reference model and two iterations a batch; returns the logs."""
    pictures = [Image.fromarray(torch.full((28, 28, 3), 40 * k, dtype=torch.uint8).numpy()) for k in range(3)]
    rows = [{"prompt": [{"role": "user", "content": "Say it."}], "image": pictures[k % 3]} for k in range(6)]

    def varied_reward(completions, **kwargs):
        return [float(len(set(c[0]["content"]))) for c in completions]

    config = GRPOConfig(
        output_dir=str(output_dir), max_steps=4, per_device_train_batch_size=4, num_generations=4, num_iterations=2,
        max_completion_length=6, learning_rate=1e-3, beta=0.04, report_to="none", save_strategy="no", use_cpu=True,
        bf16=False, seed=3, logging_steps=1,
    )  # fmt: skip
    trainer = GRPOTrainer(
        AutoModelForImageTextToText.from_pretrained(folder), reward_funcs=varied_reward, args=config,
        train_dataset=Dataset.from_list(rows), processing_class=AutoProcessor.from_pretrained(folder),
    )  # fmt: skip
    set_trainable(trainer.model, "llm+adapter")
    counters += [Counter(trainer.model), Counter(trainer.ref_model)]
    if cache is not None:
        trainer.add_callback(VisionCacheCallback(cache, trainer, reference=trainer.ref_model))
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train()
    return trainer.state.log_history


def test_grpo_encodes_distinct_tiles_only_and_trains_the_same(folder, tmp_path):
    plain, cached = [], []
    logs = run_grpo(folder, tmp_path / "a", None, plain)
    cache = VisionCache()
    cached_logs = run_grpo(folder, tmp_path / "b", cache, cached)
    distinct = sum(counter.total for counter in cached)
    assert distinct == cache.num_encoded <= 3  # three pictures, one tile each; the reference encodes none
    assert cached[1].total == 0
    # Two batches of four rows: generation, old log-probs and reference pass each; the policy pass once more.
    assert sum(counter.total for counter in plain) == cache.num_tiles == 2 * 4 * (1 + 1 + 1 + 2)
    compared = ("loss", "grad_norm", "kl", "reward", "completions/mean_length")
    steps = [log for log in logs if "loss" in log]
    assert len(steps) == 4
    cached_steps = [log for log in cached_logs if "loss" in log]
    for log, cached_log in zip(steps, cached_steps, strict=True):
        for name in compared:
            if name in log:
                assert cached_log[name] == pytest.approx(log[name], rel=1e-3, abs=1e-5), name
    assert [log["vision_cache/tiles"] for log in cached_steps] == [16, 4, 16, 4]
    assert sum(log["vision_cache/encoded"] for log in cached_steps) == cache.num_encoded
    assert cached_steps[1]["vision_cache/hit_rate"] == 1.0


class LooksBetweenSteps(TrainerCallback):
    """As a monitor or an evaluation does: a forward over five tiles after every step."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            model.model.vision_tower(
                torch.rand(5, 3, 28, 28, generator=torch.Generator().manual_seed(state.global_step))
            )


def test_what_others_look_at_between_steps_is_not_counted(folder, tmp_path):
    cache = VisionCache()
    logs = run_grpo(folder, tmp_path, cache, [], [LooksBetweenSteps()])
    steps = [log for log in logs if "loss" in log]
    assert [log["vision_cache/tiles"] for log in steps] == [16, 4, 16, 4]
    assert cache.num_tiles == 40 + 4 * 5
    assert sum(log["vision_cache/encoded"] for log in steps) == cache.num_encoded - 4 * 5 <= 3


@pytest.mark.parametrize("name", ["encoder.layer.1.lambda_1", "embeddings.cls_token"])
def test_bypassed_while_any_parameter_of_the_tower_trains(model, name):
    tower, counter = find_tower(model), Counter(model)
    with VisionCache().installed(model) as cache:
        tower(tiles(2))
        parameter = dict(tower.named_parameters())[name]
        parameter.requires_grad_(True)
        output = tower(tiles(2)).last_hidden_state
        assert output.requires_grad and cache.num_bypassed == 1 and counter.sizes == [2, 2]
        output.sum().backward()
        assert parameter.grad.abs().sum() > 0
        parameter.data.mul_(2)  # an optimizer that works on `.data` leaves no trace in the version counter
        parameter.requires_grad_(False)
        after = tower(tiles(2)).last_hidden_state
        assert counter.sizes == [2, 2, 2] and not torch.equal(after, output)


def test_changed_weights_are_noticed(model):
    tower, counter = find_tower(model), Counter(model)
    with VisionCache().installed(model) as cache:
        before = tower(tiles(2)).last_hidden_state
        tower.load_state_dict({name: value * 0.5 for name, value in tower.state_dict().items()})
        after = tower(tiles(2)).last_hidden_state
        assert counter.sizes == [2, 2] and not torch.equal(before, after)
        assert cache.num_bytes == after.numel() * 4  # the old features are gone


def test_bypassed_for_hidden_states_dropout_input_gradients_and_switch(model):
    tower = find_tower(model)
    cache = VisionCache()
    with cache.installed(model):
        assert len(tower(tiles(1), output_hidden_states=True).hidden_states) == 3
        assert isinstance(tower(tiles(1), return_dict=False), tuple)
        assert tower(tiles(1).requires_grad_()).last_hidden_state.requires_grad
        tower.embeddings.dropout.p = 0.5
        tower.train()
        assert not torch.equal(tower(tiles(1)).last_hidden_state, tower(tiles(1)).last_hidden_state)
        assert (cache.num_bypassed, cache.num_tiles) == (5, 0)
        tower.eval()
        tower(tiles(1))
        assert (cache.num_bypassed, cache.num_tiles) == (5, 1)


def test_least_recently_used_features_leave_first(model):
    tower, counter = find_tower(model), Counter(model)
    one = tower(tiles(1)).last_hidden_state.nbytes
    counter.sizes.clear()
    a, b, c = tiles(3).split(1)
    with VisionCache(max_bytes=2 * one).installed(model) as cache:
        for tile in (a, b, a, c, a, b):  # c pushes b out, not a; then b pushes c out
            tower(tile)
        assert counter.total == 4 and cache.num_evicted == 2 and cache.num_bytes == 2 * one
    counter.sizes.clear()
    expected = tower(torch.cat([a, b, c])).last_hidden_state
    with VisionCache(max_bytes=one - 1).installed(model) as cache:
        torch.testing.assert_close(tower(torch.cat([a, b, c])).last_hidden_state, expected)
        assert cache.num_bytes == 0


def test_counted_bytes_are_the_bytes_held(model):
    """A kept tile must not keep the whole batch it was encoded in alive."""
    tower = find_tower(model)
    one = tower(tiles(1)).last_hidden_state.nbytes
    with VisionCache(max_bytes=2 * one).installed(model) as cache:
        tower(tiles(5))
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage() for e in cache._entries.values() for t in e.features
        }
        assert sum(storage.nbytes() for storage in storages.values()) == cache.num_bytes == 2 * one


def test_reference_with_equal_weights_shares_and_another_does_not(folder, model):
    twin = AutoModelForImageTextToText.from_pretrained(folder).requires_grad_(False)
    other = AutoModelForImageTextToText.from_pretrained(folder).requires_grad_(False)
    with torch.no_grad():
        find_tower(other).embeddings.cls_token.add_(1)
    counters = [Counter(m) for m in (model, twin, other)]
    with VisionCache().installed(model, twin, other):
        outputs = [find_tower(m)(tiles(2)).last_hidden_state for m in (model, twin, other)]
    assert [counter.total for counter in counters] == [2, 0, 2]
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


def test_a_tower_that_changed_lends_nothing(folder, model):
    """B equals what A is now, but A's kept features are of what A was."""
    other = AutoModelForImageTextToText.from_pretrained(folder).requires_grad_(False)
    a, b = find_tower(model), find_tower(other)
    with VisionCache().installed(model, other):
        old = a(tiles(1)).last_hidden_state
        with torch.no_grad():
            for tower in (a, b):
                tower.embeddings.cls_token.add_(1)
        assert not torch.equal(b(tiles(1)).last_hidden_state, old)


def test_features_of_inference_mode_serve_the_backward(model):
    with VisionCache().installed(model) as cache:
        with torch.inference_mode():
            model.get_image_features(tiles(1))
        features = model.get_image_features(tiles(1)).pooler_output
        features.sum().backward()
        assert cache.num_encoded == 1
    assert model.model.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0


def test_autocast_has_features_of_its_own(model):
    tower = find_tower(model)
    with VisionCache().installed(model) as cache:
        plain = tower(tiles(1)).last_hidden_state
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = tower(tiles(1)).last_hidden_state
        assert cache.num_encoded == 2 and not torch.equal(plain, cast.float())


def test_peft_on_the_tower_is_refused_and_on_the_llm_is_not(folder):
    base = AutoModelForImageTextToText.from_pretrained(folder)
    with pytest.raises(ValueError, match="carries PEFT layers"):
        VisionCache().install(get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])))
    base = AutoModelForImageTextToText.from_pretrained(folder)
    peft_model = get_peft_model(base, LoraConfig(r=2, target_modules=r".*language_model.*q_proj"))
    counter = Counter(peft_model)
    with VisionCache().installed(peft_model):
        for _ in range(2):
            peft_model.get_image_features(tiles(2))
    assert counter.sizes == [2]


def test_installing_twice_or_without_a_tower_is_refused(model):
    cache = VisionCache()
    cache.install(model)
    with pytest.raises(ValueError, match="on this tower already"):
        cache.install(model)
    cache.uninstall()
    with pytest.raises(ValueError, match="no module called vision_tower"):
        cache.install(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="max_bytes is 0"):
        VisionCache(max_bytes=0)
    with pytest.raises(ValueError, match="`vision_cache_size` is 'much'; give a size such as"):
        VisionCacheArguments(vision_cache_size="much")


@pytest.mark.slow
def test_sharded_towers_agree_between_ranks(tmp_path):
    """FSDP2 in two processes: a rank whose tiles are all kept still joins the gathering that the other one needs."""
    script = tmp_path / "sharded.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import torch, torch.distributed as dist
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard
            from transformers import InternVLVisionConfig, InternVLVisionModel
            from tests.support import tiny_parts
            from trl_r1v2.vlm.vision_cache import VisionCache

            dist.init_process_group("gloo")
            rank = dist.get_rank()
            config = InternVLVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                          intermediate_size=48, image_size=28, patch_size=7)
            tower = tiny_parts.randomise(InternVLVisionModel(config), 0).eval().requires_grad_(False)
            pixels = torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                expected = tower(pixels).last_hidden_state
            mesh = init_device_mesh("cpu", (2,))
            for layer in tower.encoder.layer:
                fully_shard(layer, mesh=mesh)
            fully_shard(tower, mesh=mesh)
            cache = VisionCache()
            cache.install(tower, tower=tower)
            with torch.no_grad():
                for rows in ([[0, 1], [2]], [[0, 1], [3]], [[1], [2, 3]]):
                    output = tower(pixels[rows[rank]]).last_hidden_state
                    torch.testing.assert_close(output, expected[rows[rank]])
            assert cache.num_encoded == 2, cache.num_encoded
            dist.barrier()
            print("done")
            dist.destroy_process_group()
            """
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("done") == 2
