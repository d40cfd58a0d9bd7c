import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.ssb_grpo import SSBGRPOConfig, SSBGRPOTrainer
from trl.experimental.ssb_grpo.sample_buffer import Sample, SelectiveSampleBuffer

from ..testing_utils import TrlTestCase


def fated_reward(completion_ids, row, **kwargs):
    """Spreads in every group of four but those of odd rows, which are all right."""
    return [1.0 if number % 2 else float(index % 4) for index, number in enumerate(row)]


class TestSelectiveSampleBuffer:
    def test_draws_by_weight_and_evicts_the_lightest(self):
        tokens = {name: torch.zeros(2) for name in ("completion_ids", "old_per_token_logps")}
        buffer = SelectiveSampleBuffer(capacity=2, seed=0)
        buffer.extend([Sample(tokens, advantage, step=0) for advantage in (0.1, 1.0, -3.0)])
        assert list(buffer.samples) == [1, 2]
        first = [buffer.draw(1, step=0)[0].uid for _ in range(2000)]
        assert first.count(2) / 2000 == pytest.approx(0.75, abs=0.04)


class TestSSBGRPOTrainer(TrlTestCase):
    def train(self, cls, name, resume=None, images=False, **kwargs):
        rows = [{"prompt": [{"role": "user", "content": "a" * (1 + n % 3)}], "row": n} for n in range(12)]
        for row in rows if images else []:
            pixels = np.random.default_rng(row["row"]).integers(0, 256, (56, 56, 3), dtype=np.uint8)
            row["images"] = [Image.fromarray(pixels)]
        args = (GRPOConfig if cls is GRPOTrainer else SSBGRPOConfig)(
            output_dir=f"{self.tmp_dir}/{name}",
            learning_rate=1e-3,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=6,
            max_steps=4,
            save_steps=1,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            **kwargs,
        )
        model = "tiny-Qwen2_5_VLForConditionalGeneration" if images else "tiny-Qwen2ForCausalLM-2.5"
        trainer = cls(f"trl-internal-testing/{model}", fated_reward, args, train_dataset=Dataset.from_list(rows))
        before = {n: param.clone() for n, param in trainer.model.named_parameters()}
        trainer.train(resume_from_checkpoint=resume)
        changed = [n for n, param in trainer.model.named_parameters() if not torch.equal(param, before[n])]
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        return trainer, changed, logged

    @pytest.mark.parametrize("images", [False, True])
    def test_train(self, images):
        trainer, changed, logged = self.train(SSBGRPOTrainer, "ssb", images=images, beta=0.1, num_iterations=2)
        assert changed and sum(entry["ssb/replayed_rows"] for entry in logged if "ssb/size" in entry) > 0
        assert all(sample.num_images == images for sample in trainer.buffer.samples.values())

    def test_disabled_is_grpo(self):
        ours, _, logged = self.train(SSBGRPOTrainer, "off", ssb_enabled=False)
        theirs, _, stock = self.train(GRPOTrainer, "stock")
        assert [entry["loss"] for entry in logged] == [entry["loss"] for entry in stock]
        assert all(map(torch.equal, ours.model.parameters(), theirs.model.parameters()))

    def test_resumed_is_uninterrupted(self):
        whole, _, logged = self.train(SSBGRPOTrainer, "whole")
        resumed, _, again = self.train(SSBGRPOTrainer, "on", resume=f"{self.tmp_dir}/whole/checkpoint-2")
        assert [entry["loss"] for entry in logged] == [entry["loss"] for entry in again]
        assert list(whole.buffer.samples) == list(resumed.buffer.samples)

    def test_dynamic_sampling(self):
        _, _, logged = self.train(SSBGRPOTrainer, "dapo", ssb_resample_rounds=3, ssb_replay="none")
        assert sum(entry["ssb/resampled_rows"] for entry in logged) > 0 == sum(e["ssb/replayed_rows"] for e in logged)
