# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A probe that follows a training run and recomputes what every optimizer step should have been."""

import torch
from trl import GRPOTrainer
from trl.trainer import grpo_trainer

from tests.support.ssb_reference import BeforeStep
from tests.support.ssb_row_losses import RefRow, row_logps, step_loss
from tests.support.ssb_runs import make_trainer, spread_reward
from trl_r1v2 import SSBGRPOTrainer


class fated:
    """A reward that gives the groups of chosen dataset rows no spread: `{row: reward of all its completions}`."""

    __name__ = "fated"

    def __init__(self, fates, reward=spread_reward):
        self.fates, self.reward = fates, reward

    def __call__(self, completion_ids, row, **kwargs):
        rewards = self.reward(completion_ids=completion_ids, row=row, **kwargs)
        return [self.fates.get(number, value) for number, value in zip(row, rewards, strict=True)]


def copied(value):
    return value.clone() if isinstance(value, torch.Tensor) else list(value) if isinstance(value, list) else value


def real_tokens(batch, index):
    """Unpadded ids of one row. Random tokens never are the padding token, so masked-out rows are found too."""
    prompt = batch["prompt_ids"][index][batch["prompt_mask"][index].bool()]
    completion = batch["completion_ids"][index]
    mask = batch["completion_mask"][index].bool()
    return prompt, completion[mask] if mask.any() else completion


def row_visual(batch, index):
    """Visual inputs of one row of TRL's flat batch, sliced by counts alone."""
    if "pixel_values" not in batch or not batch["num_images"][index]:
        return {}
    num_images = batch["num_images"]
    first, last = sum(num_images[:index]), sum(num_images[: index + 1])
    if "image_grid_thw" in batch:
        sizes = batch["image_grid_thw"].prod(-1).tolist()
        pixels = batch["pixel_values"][sum(sizes[:first]) : sum(sizes[:last])]
        types = batch["mm_token_type_ids"][index, : batch["prompt_ids"].size(1)][batch["prompt_mask"][index].bool()]
        return {
            "pixel_values": pixels,
            "image_grid_thw": batch["image_grid_thw"][first:last],
            "mm_token_type_ids": types,
        }
    counts = batch.get("num_tiles", num_images)
    return {"pixel_values": batch["pixel_values"][sum(counts[:index]) : sum(counts[: index + 1])]}


class Probe:
    """
    Follows a run with its own book of samples: what each was, and a log-probability forward of its own at the moment
    of sampling. Rows are not shuffled after generation, so every row of every backward pass is known.

    Attributes:
        fresh: Per generation, what stock TRL returned (one entry more for each extra round).
        used: Per generation, what the trainer made of it.
        drawn: Per generation, uids drawn from the buffer.
        steps: Per optimizer step, the rows of each backward pass.
        losses: Per optimizer step, its loss.
    """

    def __init__(self, monkeypatch, stock=GRPOTrainer):
        self.monkeypatch, self.stock = monkeypatch, stock
        self.fresh, self.used, self.drawn, self.steps, self.rows = [], [], [], [], []
        self.book, self.born, self.errors, self.losses, self.pending = {}, {}, [], [], []
        self.callback = BeforeStep(self.check_step)

    def attach(self, trainer):
        self.trainer = trainer
        patch, stock = self.monkeypatch.setattr, self.stock._generate_and_score_completions
        generate, draw = trainer._generate_and_score_completions, trainer.buffer.draw
        extend, loss = trainer.buffer.extend, trainer._compute_loss

        def recording_stock(inner, inputs):
            output = stock(inner, inputs)
            if inner.model.training:
                self.fresh[-1].append({key: copied(value) for key, value in output.items()})
            return output

        def recording_generate(inputs):
            if not trainer.model.training:
                return generate(inputs)
            self.fresh.append([])
            output = generate(inputs)
            self.used.append({key: copied(value) for key, value in output.items()})
            self.rows.append(self.expected_rows())
            return output

        def recording_draw(num_samples, step):
            samples = draw(num_samples, step)
            self.drawn.append([sample.uid for sample in samples])
            return samples

        def recording_extend(samples):
            samples = list(samples)
            uids = extend(samples)
            for uid, sample in zip(uids, samples, strict=True):
                self.book[uid], self.born[uid] = self.entry(sample), len(self.fresh)
            return uids

        def recording_loss(model, inputs):
            if trainer.model.training:
                self.pending.append((len(self.rows) - 1, trainer._step % trainer.args.steps_per_generation))
            return loss(model, inputs)

        patch(self.stock, "_generate_and_score_completions", recording_stock)
        patch(trainer, "_generate_and_score_completions", recording_generate)
        patch(trainer.buffer, "draw", recording_draw)
        patch(trainer.buffer, "extend", recording_extend)
        patch(trainer, "_compute_loss", recording_loss)
        patch(grpo_trainer, "shuffle_sequence_dict", lambda batch: batch)
        return trainer

    # ---- Rows, recomputed ----

    def logps(self, prompt, completion, visual):
        with torch.no_grad():
            return row_logps(self.trainer.model, prompt, completion, visual, self.trainer.temperature)

    def reference_logps(self, prompt, completion, visual):
        if self.trainer.ref_model is None:  # an adapter's reference is the model without it
            with self.trainer.model.disable_adapter():
                return self.logps(prompt, completion, visual)
        with torch.no_grad():
            return row_logps(self.trainer.ref_model, prompt, completion, visual, self.trainer.temperature)

    def entry(self, sample) -> RefRow:
        """What the book says of a sample, from the latest stock output it was taken from."""
        for batch in self.fresh[-1]:
            for index in range(len(batch["advantages"])):
                prompt, completion = real_tokens(batch, index)
                if (
                    batch["advantages"][index].item() == sample.advantage
                    and prompt.tolist() == sample.tokens["prompt_ids"].tolist()
                    and completion.tolist() == sample.tokens["completion_ids"].tolist()
                ):
                    return self.row_of(batch, index)
        raise AssertionError("the buffer was offered something that TRL did not return")

    def row_of(self, batch, index) -> RefRow:
        prompt, completion = real_tokens(batch, index)
        visual = row_visual(batch, index)
        mask = batch["completion_mask"][index, : len(completion)]
        if "tool_mask" in batch:
            mask = mask * batch["tool_mask"][index, : len(completion)]
        ratio = batch.get("importance_sampling_ratio")
        if ratio is not None:
            ratio = ratio[index, : len(completion)].clone()
        reference = None
        if self.trainer.beta:
            reference = self.reference_logps(prompt, completion, visual)
        return RefRow(
            prompt,
            completion,
            batch["advantages"][index].item(),
            self.logps(prompt, completion, visual),
            visual,
            mask,
            reference,
            ratio,
        )

    def expected_rows(self) -> list[RefRow]:
        """The rows of the latest generation, from TRL's output and the book alone; checks them against the batch."""
        used, fresh = self.used[-1], self.fresh[-1][0]
        num_fresh, num_rows = len(fresh["advantages"]), len(used["advantages"])
        replayed = used["ssb_is_replayed"].nonzero().flatten().tolist()
        in_order = sorted(replayed, key=lambda index: (index < num_fresh, index))
        uid_of = dict(zip(in_order, self.drawn[-1], strict=True))
        assert all(self.born[uid] < len(self.fresh) for uid in self.drawn[-1]), "a batch was replayed into itself"
        rows = []
        for index in range(num_rows):
            if index in uid_of:
                row = self.book[uid_of[index]]
            else:
                row = self.row_of(used, index)
                if used["ssb_uids"][index] < 0 and self.is_changed(index):  # from an extra round
                    assert any(self.same(row, entry) for entry in self.book.values())
            assert self.same(row, self.row_of(used, index)), f"row {index} is not what it should be"
            rows.append(row)
        return rows

    def is_changed(self, index) -> bool:
        fresh, used = self.fresh[-1][0], self.used[-1]
        ours, theirs = (torch.cat(real_tokens(batch, index)).tolist() for batch in (used, fresh))
        return ours != theirs

    def same(self, row, other) -> bool:
        if row.visual.keys() != other.visual.keys():
            return False
        return (
            row.prompt_ids.tolist() == other.prompt_ids.tolist()
            and row.completion_ids.tolist() == other.completion_ids.tolist()
            and row.advantage == other.advantage
            and row.mask.tolist() == other.mask.tolist()
            and (row.engine_ratio is None or row.engine_ratio.tolist() == other.engine_ratio.tolist())
            and all(torch.equal(value, other.visual[name]) for name, value in row.visual.items())
        )

    # ---- Gradients, recomputed ----

    def check_step(self, step):
        args = self.trainer.args
        micro_batches = []
        for generation, place in self.pending:
            rows = self.rows[generation]
            num_tokens = sum(int(row.mask.sum()) for row in rows)
            assert int(self.used[generation]["num_items_in_batch"]) == num_tokens
            size = len(rows) // args.steps_per_generation
            micro_batches.append((rows[place * size : (place + 1) * size], num_tokens))
        self.pending = []
        self.steps.append(micro_batches)
        model = self.trainer.model
        weights = [weight for weight in model.parameters() if weight.grad is not None]
        actual = torch.cat([weight.grad.flatten() for weight in weights])
        loss = step_loss(model, micro_batches, args)
        self.losses.append(loss.item())
        if not loss.requires_grad:
            expected = torch.zeros_like(actual)
        else:
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            expected = torch.cat(
                [
                    torch.zeros_like(weight).flatten() if gradient is None else gradient.flatten()
                    for weight, gradient in zip(weights, gradients, strict=True)
                ]
            )
        self.errors.append(((actual - expected).norm() / expected.norm().clamp(min=1e-6)).item())

    def assert_buffer(self):
        """Everything held carries the log-probabilities of the policy that sampled it, and of the reference."""
        samples = self.trainer.buffer.samples
        assert samples
        for uid, sample in samples.items():
            row = self.book[uid]
            wanted = {"old_per_token_logps": row.behaviour, "ref_per_token_logps": row.reference}
            for name, expected in wanted.items():
                if expected is not None:
                    actual = sample.tokens[name]
                    # Tokens that are not trained on may be attended to differently.
                    torch.testing.assert_close(
                        actual[row.mask.bool()], expected[row.mask.bool()], atol=1e-4, rtol=1e-4
                    )

    @property
    def num_replayed(self) -> list[int]:
        return [int(used["ssb_is_replayed"].sum()) for used in self.used]

    def assert_gradients(self, num_steps, tolerance=2e-4):
        """Float32 and different kernels (padding, fused head) leave about 1e-6; a wrong ratio leaves 1e-1."""
        assert len(self.errors) == num_steps
        assert max(self.errors) < tolerance, self.errors


def probed(monkeypatch, path, output_dir, dataset, reward, cls=SSBGRPOTrainer, stock=GRPOTrainer, **settings):
    """A trainer without gradient clipping or shuffling, and the probe that follows it."""
    probe = Probe(monkeypatch, stock)
    trainer = make_trainer(
        cls,
        path,
        output_dir,
        dataset,
        reward,
        **({"shuffle_dataset": False, "max_grad_norm": 0.0, "max_steps": 3, "callbacks": [probe.callback]} | settings),
    )
    return probe.attach(trainer), probe


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]
