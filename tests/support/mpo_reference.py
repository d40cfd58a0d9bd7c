# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""MPO written out once more in plain PyTorch, sharing no code with the package or with TRL's fused head."""

import copy

import torch


def response_logps(model, row: dict) -> list[torch.Tensor]:
    """Log-probabilities of one sequence's response tokens, from the logits of the model's own forward."""
    length = int(row["attention_mask"].sum())
    ids = row["input_ids"][:length]
    logits = model(input_ids=ids[None]).logits[0]
    logps = torch.log(torch.softmax(logits.double(), dim=-1))
    return [logps[t - 1, ids[t]] for t in range(1, length) if row["completion_mask"][t]]


class PlainMPO:
    """
    Trains copies of policy and reference on recorded micro-batches by gradient descent.

    Args:
        weights: of preference, quality and generation loss.
        shift: "running_mean", "ema" or "zero".
    """

    def __init__(self, policy, reference, beta, weights, shift, decay, smoothing, generation_type, learning_rate):
        self.policy, self.reference = copy.deepcopy(policy).double(), copy.deepcopy(reference).double()
        self.beta, self.weights, self.shift, self.decay = beta, weights, shift, decay
        self.smoothing, self.generation_type, self.learning_rate = smoothing, generation_type, learning_rate
        self.delta, self.seen = 0.0, []
        self.history = []

    def micro_batch(self, batch: dict, accumulation: int) -> None:
        rows = [
            {name: batch[name][i] for name in ("input_ids", "attention_mask", "completion_mask")}
            for i in range(len(batch["input_ids"]))
        ]
        pairs = len(rows) // 2
        policy = [response_logps(self.policy, row) for row in rows]
        with torch.no_grad():
            reference = [sum(response_logps(self.reference, row)) for row in rows]
        rewards = [self.beta * (sum(logps) - ref) for logps, ref in zip(policy, reference, strict=True)]
        self._move_delta([reward.item() for reward in rewards])

        def sigmoid_loss(x):
            return -torch.log(1 / (1 + torch.exp(-x)))

        margins = [rewards[i] - rewards[i + pairs] for i in range(pairs)]
        preference = (
            sum((1 - self.smoothing) * sigmoid_loss(m) + self.smoothing * sigmoid_loss(-m) for m in margins) / pairs
        )
        quality = (
            sum(
                sigmoid_loss(rewards[i] - self.delta) + sigmoid_loss(self.delta - rewards[i + pairs])
                for i in range(pairs)
            )
            / pairs
        )
        if self.generation_type == "sequence":
            generation = sum(-sum(logps) / len(logps) for logps in policy[:pairs]) / pairs
        else:
            tokens = [logp for logps in policy[:pairs] for logp in logps]
            generation = -sum(tokens) / len(tokens)
        loss = self.weights[0] * preference + self.weights[1] * quality + self.weights[2] * generation
        (loss / accumulation).backward()
        self.history.append(
            {
                "loss": loss.item(),
                "preference_loss": preference.item(),
                "quality_loss": quality.item(),
                "generation_loss": generation.item(),
                "reward_shift": self.delta,
                "chosen_reward": sum(rewards[:pairs]).item() / pairs,
                "rejected_reward": sum(rewards[pairs:]).item() / pairs,
            }
        )

    def _move_delta(self, rewards: list[float]) -> None:
        mean = sum(rewards) / len(rewards)
        if self.shift == "running_mean":
            self.seen += rewards
            self.delta = sum(self.seen) / len(self.seen)
        elif self.shift == "ema":
            self.delta = mean if not self.seen else self.decay * self.delta + (1 - self.decay) * mean
            self.seen += rewards

    def optimizer_step(self) -> dict[str, torch.Tensor]:
        """One step of gradient descent; returns the gradients it used."""
        gradients = {}
        with torch.no_grad():
            for name, parameter in self.policy.named_parameters():
                gradients[name] = parameter.grad.clone()
                parameter -= self.learning_rate * parameter.grad
                parameter.grad = None
        return gradients
