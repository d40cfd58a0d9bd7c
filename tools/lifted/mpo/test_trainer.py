import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.experimental.mpo import MPOConfig, MPOTrainer

from ..testing_utils import TrlTestCase


MODEL = "trl-internal-testing/tiny-Qwen2ForCausalLM-2.5"


class TestMPOTrainer(TrlTestCase):
    def train(self, cls, name, resume=None, **kwargs):
        rows = {"prompt": ["add"] * 8, "chosen": [f" is {n}" for n in range(8)], "rejected": [" no", " not so"] * 4}
        args = (DPOConfig if cls is DPOTrainer else MPOConfig)(
            output_dir=f"{self.tmp_dir}/{name}",
            learning_rate=1e-2,
            beta=0.5,
            per_device_train_batch_size=2,
            max_steps=4,
            save_steps=1,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            **kwargs,
        )
        trainer = cls(MODEL, args=args, train_dataset=Dataset.from_dict(rows))
        trainer.train(resume_from_checkpoint=resume)
        return trainer, [entry for entry in trainer.state.log_history if "loss" in entry]

    def test_losses_add_up(self):
        _, logged = self.train(MPOTrainer, "mpo")
        for entry in logged:
            parts = [entry[f"mpo/{part}_loss"] for part in ("preference", "quality", "generation")]
            assert entry["loss"] == pytest.approx(0.8 * parts[0] + 0.2 * parts[1] + parts[2], rel=1e-3)
        assert logged[-1]["mpo/reward_shift"] != 0.0

    def test_preference_loss_alone_is_dpo(self):
        weights = {"preference_weight": 1.0, "quality_weight": 0.0, "generation_weight": 0.0}
        ours, logged = self.train(MPOTrainer, "mpo", **weights)
        theirs, stock = self.train(DPOTrainer, "dpo")
        assert [entry["loss"] for entry in logged] == [entry["loss"] for entry in stock]
        assert all(map(torch.equal, ours.model.parameters(), theirs.model.parameters()))

    def test_resumed_is_uninterrupted(self):
        _, logged = self.train(MPOTrainer, "whole")
        _, again = self.train(MPOTrainer, "on", resume=f"{self.tmp_dir}/whole/checkpoint-2")
        assert [entry["mpo/reward_shift"] for entry in logged] == [entry["mpo/reward_shift"] for entry in again]
