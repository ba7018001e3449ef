"""What the processes of a data-parallel fit agree on: sums and maxima over all of them.

A process that trains alone needs no process group: then these return what they are given.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

if distributed.is_available():
    # The defaults of its functions hold the process group there is when it is imported. PyTorch's optimizers import it
    # in their first step; that group would outlive its end, and its threads abort some processes when they exit.
    import torch.distributed.nn.functional


@dataclass(frozen=True)
class BatchPart:
    """Which images of the global batch a process holds: `count` from `first` on, of `total`."""

    first: int
    count: int
    total: int

    @classmethod
    def of_rank(cls, rank: int, world_size: int, total: int) -> "BatchPart":
        """Return a rank's part; sizes differ by one where the batch does not divide.

        Raises:
            ValueError: there are more processes than images.
        """
        if world_size > total:
            raise ValueError(f"batch of {total} images for {world_size} workers, expected at least one image each")
        first, end = (total * r // world_size for r in (rank, rank + 1))
        return cls(first, end - first, total)

    def take(self, batch: Tensor) -> Tensor:
        """Return this part of a tensor of the whole batch."""
        return batch[self.first : self.first + self.count]


def is_parallel() -> bool:
    """Return whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@torch.no_grad()
def copy_from_first(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if is_parallel():
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, src=0)


@torch.no_grad()
def sum_over_processes(*tensors: Tensor) -> None:
    """Replace float32 tensors by their sums over all processes, in place and all at once.

    Every process receives the same bits, so what is computed from them stays equal everywhere.
    """
    if not is_parallel():
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def max_over_processes(value: int, device: torch.device) -> int:
    """Return the largest value of all processes."""
    if not is_parallel():
        return value
    largest = torch.tensor(value, device=device)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)
