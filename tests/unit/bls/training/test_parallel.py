"""Data-parallel fits: the number of processes changes nothing but rounding, and all of them stay equal."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from bls.ladder import QualityRange
from bls.training.model import Model
from bls.training.parallel import BatchPart
from bls.training.starts.klt import initialize_from_klt
from bls.training.trainer import Trainer, TrainingConfig
from bls.transforms.gdn import GDN
from bls.transforms.networks import TransformConfig
from tests.images import random_fields

STEPS = 6
BATCH = 5
"""Not divisible by the number of processes: parts may differ in size."""


def fit(rank: int, world_size: int, folder: Path) -> None:
    """Take some steps as one of several processes, and keep the losses and the state."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    torch.manual_seed(rank)  # processes that start differently are made equal
    x = random_fields(BATCH, 64, seed=2)
    model = Model(TransformConfig(num_filters=16), QualityRange(3, 4))
    initialize_from_klt(model, x, lmbda=0.013)
    if rank == 0:
        torch.manual_seed(0)
        initialize_from_klt(model, x, lmbda=0.013)
    trainer = Trainer(model, TrainingConfig(steps=STEPS, warmup_steps=2, bfloat16="none"))
    part = BatchPart.of_rank(rank, world_size, BATCH)
    losses = [trainer.train_step(part.take(x), part).loss for _ in range(STEPS)]
    torch.save({"losses": losses, "model": model.state_dict()}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def fit_with(world_size: int, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fit, args=(rank, world_size, folder)) for rank in range(world_size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


def test_two_processes_fit_as_one_does_and_stay_equal(tmp_path: Path) -> None:
    (alone,) = fit_with(1, tmp_path / "one")
    first, second = fit_with(2, tmp_path / "two")
    # Adam's first steps take the sign of gradients that rounding can turn where they are next to nothing.
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=5e-4)
    assert alone["losses"][-1] < alone["losses"][0]
    assert first["model"].keys() == second["model"].keys() >= {"density.histogram", "analysis.1.gamma_root"}
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name
        torch.testing.assert_close(value, alone["model"][name], rtol=0.02, atol=0.02)
    gamma = first["model"]["analysis.1.gamma_root"]
    assert torch.equal(gamma, gamma.T) and gamma.shape == GDN(16).gamma_root.shape


def test_parts_make_up_the_batch() -> None:
    batch = torch.arange(7)
    parts = [BatchPart.of_rank(rank, 3, 7) for rank in range(3)]
    assert torch.equal(torch.cat([part.take(batch) for part in parts]), batch)
    assert [part.count for part in parts] == [2, 2, 3]
    with pytest.raises(ValueError, match="at least one image each"):
        BatchPart.of_rank(0, 8, 7)
