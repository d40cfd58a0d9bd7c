# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""One process of the buffer's distributed tests, whose arguments are a text and an image model."""

import hashlib
import os
import shutil

from tests import conftest  # noqa: F401  (environment variables before torch)
from tests.support.launch import whole_parameters, work
from tests.support.ssb_probes import copied, fated, logged
from tests.support.ssb_reference import BeforeStep
from tests.support.ssb_runs import SSBGRPOTrainer, image_dataset, losses, make_trainer, mixed_dataset, text_dataset


# Twelve rows a generation, six a process: group 1 lies half in each.
GROUP, LOCAL = 4, 6
# Second generation: the divided group dies. Third: groups 0 and 1, so six rows here and two there. Fourth: group 2,
# so none here and four there. Fifth: all.
FATES = {4: 0.0, 6: 1.0, 7: 0.0, 11: 1.0, 12: 1.0, 13: 0.0, 14: 1.0}
DATA = {"text": text_dataset, "images": image_dataset, "mixed": mixed_dataset}


def trainer_for(folder, models, modality="text", fates=FATES, num_rows=15, cls=SSBGRPOTrainer, **settings):
    defaults = {
        "per_device_train_batch_size": LOCAL,
        "num_generations": GROUP,
        "max_steps": 5,
        "shuffle_dataset": False,
        "max_grad_norm": 1e9,  # DeepSpeed takes 0 for 1
        "learning_rate": 3e-3,
    }
    model = models["text" if modality == "text" else "images"]
    return make_trainer(cls, model, folder, DATA[modality](num_rows), fated(fates), **(defaults | settings))


def digest(trainer) -> str:
    """Of all parameters, whatever shards them."""
    total = hashlib.sha256()
    for name, value in sorted(whole_parameters(trainer).items()):
        total.update(name.encode() + value.float().cpu().numpy().tobytes())
    return total.hexdigest()


def content(buffer) -> list[tuple]:
    return [
        (s.uid, s.advantage, s.step, s.uses, s.source, {name: t.tolist() for name, t in s.tokens.items()})
        for s in buffer.state_dict()["samples"]
    ]


class Recorder:
    """What the generations and optimizer steps of one process were; `with_gradients` where parameters are whole."""

    def __init__(self, trainer, with_gradients=True):
        self.trainer, self.with_gradients = trainer, with_gradients
        self.used, self.drawn, self.steps, self.born = [], [], [], {}
        generate, draw, extend = trainer._generate_and_score_completions, trainer.buffer.draw, trainer.buffer.extend

        def recording_generate(inputs):
            output = generate(inputs)
            self.used.append({key: copied(value) for key, value in output.items()})
            return output

        def recording_draw(count, step):
            samples = draw(count, step)
            self.drawn.append([sample.uid for sample in samples])
            return samples

        def recording_extend(samples):
            samples = list(samples)
            uids = extend(samples)
            for uid, sample in zip(uids, samples, strict=True):
                self.born[uid] = (len(self.used), sample.tokens["prompt_ids"], sample.tokens["completion_ids"])
            return uids

        trainer._generate_and_score_completions = recording_generate
        trainer.buffer.draw, trainer.buffer.extend = recording_draw, recording_extend
        trainer.add_callback(BeforeStep(self.record_step))

    def record_step(self, step):
        record = {}
        if self.with_gradients:
            named = dict(self.trainer.model.named_parameters())
            record["parameters"] = {name: value.detach().clone() for name, value in named.items()}
            record["gradients"] = {n: p.grad.clone() for n, p in named.items() if p.grad is not None}
            if self.trainer.ref_model is not None:
                record["reference"] = {n: p.detach().clone() for n, p in self.trainer.ref_model.named_parameters()}
        self.steps.append(record)

    def summary(self) -> dict:
        trainer = self.trainer
        names = ("dead_groups", "effective_before", "effective_after", "replayed_rows", "resampled_rows", "size")
        names += ("fresh_rows", "ratio_mean")
        return {
            "used": self.used,
            "drawn": self.drawn,
            "born": self.born,
            "steps": self.steps,
            "losses": losses(trainer),
            "digest": digest(trainer),
            "buffer": content(trainer.buffer),
            "logged": {name: logged(trainer, f"ssb/{name}") for name in names},
        }


def trained(folder, models, with_gradients=True, **settings) -> dict:
    trainer = trainer_for(folder, models, **settings)
    recorder = Recorder(trainer, with_gradients)
    trainer.train()
    return recorder.summary()


def without_images_here(folder, models, **settings) -> dict:
    """
    The second process's rows never have an image, the first one's always; with activation checkpointing, TRL's
    default.
    """
    data = image_dataset(12, layouts=((1,), ()))
    trainer = make_trainer(
        SSBGRPOTrainer,
        models["images"],
        folder,
        data,
        fated({2: 0.0, 3: 1.0}),
        per_device_train_batch_size=GROUP,
        num_generations=GROUP,
        max_steps=5,
        shuffle_dataset=False,
        gradient_checkpointing=True,
        **settings,
    )
    trainer.train()
    contents = [messages[-1]["content"] for messages in trainer._logs["prompt"]]
    return {
        "losses": losses(trainer),
        "digest": digest(trainer),
        "replayed": logged(trainer, "ssb/replayed_rows"),
        "num_images": [len(images) for images in trainer._logs["images"]],
        "prompts": [content[-1] if isinstance(content, str) else content[-1]["text"][-1] for content in contents],
    }


def interrupted(folder, models, save_step=3, **settings) -> dict:
    """A whole run, and one that goes on from a checkpoint of it."""
    settings = {"with_gradients": False, "save_strategy": "steps", "save_steps": save_step} | settings
    whole = trained(folder / "whole", models, **settings)
    with_gradients = settings.pop("with_gradients")
    trainer = trainer_for(folder / "resumed", models, **settings)
    recorder = Recorder(trainer, with_gradients)
    trainer.train(resume_from_checkpoint=str(folder / "whole" / f"checkpoint-{save_step}"))
    return {"whole": whole, "resumed": recorder.summary()}


def on_own_disks(folder, models) -> dict:
    """
    As on two nodes that share no disk: each process has its own folder, of which it writes all. A run that goes on
    from the last checkpoint that both have, where the second process lost its last one.
    """
    rank, place, os.environ["LOCAL_RANK"] = int(os.environ["RANK"]), os.environ["LOCAL_RANK"], "0"
    disk, settings = folder / f"node-{rank}", {"save_strategy": "steps", "save_steps": 1, "save_on_each_node": True}
    whole = trained(disk / "run", models, False, **settings)
    for path in (disk / "run").glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > 4 - rank:
            shutil.rmtree(path)
    found = sorted(path.name for path in (disk / "run").glob("checkpoint-*/ssb/*"))
    trainer = trainer_for(disk / "run", models, **settings)
    recorder = Recorder(trainer, False)
    trainer.train(resume_from_checkpoint=True)
    os.environ["LOCAL_RANK"] = place
    return {"whole": whole, "resumed": recorder.summary(), "found": found}


SYNCED = {"beta": 0.3, "sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.7}
SCENARIOS = {
    "grpo": lambda folder, models: trained(folder, models),
    "dapo": lambda folder, models: trained(folder, models, loss_type="dapo"),
    "old_rollouts": lambda folder, models: trained(folder, models, num_iterations=2, max_steps=10),
    "mixed": lambda folder, models: trained(folder, models, modality="mixed"),
    "synced": lambda folder, models: trained(folder, models, learning_rate=2e-2, **SYNCED),
    "synced_shards": lambda folder, models: trained(folder, models, False, learning_rate=2e-2, **SYNCED),
    "on_own_disks": on_own_disks,
    "text_here": without_images_here,
    "text_here_off": lambda folder, models: without_images_here(folder, models, ssb_enabled=False),
    "extra_rounds": lambda folder, models: trained(folder, models, ssb_resample_rounds=2, ssb_capacity=1),
    "share": lambda folder, models: trained(
        folder, models, per_device_train_batch_size=2 * GROUP, ssb_replay_share=0.5, num_rows=20
    ),
    # In the first generation the second process has two live rows, so the second adds no more than two anywhere.
    "append": lambda folder, models: trained(
        folder, models, fates=FATES | {2: 0.0}, ssb_replay="append", ssb_replay_share=0.5
    ),
    "interrupted": lambda folder, models: interrupted(folder, models, ssb_resample_rounds=1, ssb_capacity=3),
    "interrupted_later": lambda folder, models: interrupted(
        folder, models, num_rows=7, max_steps=6, shuffle_dataset=True
    ),
    "interrupted_images": lambda folder, models: interrupted(folder, models, modality="images", max_steps=4),
    "sharded": lambda folder, models: trained(folder, models, with_gradients=False),
    "interrupted_shards": lambda folder, models: interrupted(folder, models),
}


def on_models(scenario):
    return lambda folder, text, images: scenario(folder / "run", {"text": text, "images": images})


if __name__ == "__main__":
    work({name: on_models(scenario) for name, scenario in SCENARIOS.items()})
