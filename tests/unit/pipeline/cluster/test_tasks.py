"""The search for images that kill, without a Ray; tests/integration has it with one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cluster.tasks import Task
from pipeline.console.exits import WorkError
from pipeline.ledger.shard import Shard


class FakeActor:
    """Remembers which items it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.is_probe = False

    def run(self, shard: Shard, crashed: frozenset[int]) -> None:
        self.given = [item for position, item in enumerate(shard.items) if position not in crashed]
        self.is_probe = False

    def probe(self, shard: Shard) -> None:
        self.given = list(shard.items)
        self.is_probe = True


def work_on(task: Task, deadly: set[int]) -> int:
    """Do what the pool does with a task until its shard is done; return how many workers died."""
    actor, num_dead = FakeActor(), 0
    while True:
        task.submit(actor)
        if deadly & set(actor.given):
            num_dead += 1
            task.crashed()
        elif actor.is_probe:
            task.survived_probe()
        else:
            return num_dead


@given(
    st.integers(1, 130).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1), max_size=5)))
)
def test_images_that_kill_are_found_alone(case: tuple[int, set[int]]) -> None:
    size, deadly = case
    task = Task(Shard(0, tuple(range(size))))
    num_dead = work_on(task, deadly)
    assert task.killers == deadly
    assert num_dead <= 2 + len(deadly) * (math.ceil(math.log2(size)) + 2)


def test_one_death_accuses_nobody() -> None:
    task = Task(Shard(0, (0, 1)))
    task.crashed()
    assert work_on(task, set()) == 0
    assert task.killers == set()


def test_deaths_that_no_image_causes_alone_end_the_job() -> None:
    task, actor = Task(Shard(7, tuple(range(4)))), FakeActor()

    def dies_as_a_whole() -> None:
        while True:
            task.submit(actor)
            if len(actor.given) == 4:
                task.crashed()
            else:
                task.survived_probe()

    with pytest.raises(WorkError, match=r"shard 7 ends its worker again and again.*--num-workers"):
        dies_as_a_whole()
    assert task.killers == set()


def test_an_error_of_the_output_is_tried_once_more() -> None:
    task = Task(Shard(3, (0,)))
    task.raised(OSError("first"))
    with pytest.raises(WorkError, match="shard 3 cannot be done: OSError: disk full"):
        task.raised(OSError("details\ndisk full\n"))
