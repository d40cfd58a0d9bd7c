import pytest, torch
from tests.support.ssb_probes import fated, probed
from tests.support.ssb_runs import text_dataset, image_dataset
from tests.gpu.test_gradients import *
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("kind", ["text", "images"])
def test_break(kind, broken, bf16, text_model_path, internvl_path, tmp_path, monkeypatch):
    path, data = (text_model_path, text_dataset) if kind == "text" else (internvl_path, image_dataset)
    trainer, probe = probed(monkeypatch, path, tmp_path, data(), fated({3: 0.0, 4: 1.0, 5: 1.0}), use_cpu=True, bf16=bf16)
    if broken:
        loss = trainer._compute_loss
        def without(model, inputs):
            return loss(model, {k: v for k, v in inputs.items() if k != "old_per_token_logps"})
        monkeypatch.setattr(trainer, "_compute_loss", without)
    trainer.train()
    print("ERR", kind, broken, bf16, probe.errors)
