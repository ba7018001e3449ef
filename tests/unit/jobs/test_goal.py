import pytest

from bls.targets import Target
from jobs.goal import GoalOptions, parse_size


def test_without_a_goal_the_quality_is_the_usual_one() -> None:
    goal = GoalOptions()
    assert (goal.common_quality, goal.target, goal.budget) == (4, None, None)
    assert GoalOptions(quality=2.5).common_quality == 2.5


def test_a_target_or_a_budget_leaves_the_quality_open() -> None:
    for goal, target, budget in (
        (GoalOptions(target_num_bytes=40_000), Target("num_bytes", 40_000), None),
        (GoalOptions(target_ms_ssim=0.97), Target("ms_ssim", 0.97), None),
        (GoalOptions(max_total_bytes="2TB"), None, 2 * 10**12),
    ):
        assert (goal.common_quality, goal.target, goal.budget) == (None, target, budget)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("40000", 40_000),
        ("40000B", 40_000),
        ("1.5 kB", 1500),
        ("2tb", 2 * 10**12),
        ("1GiB", 2**30),
        ("3 MiB", 3 * 2**20),
    ],
)
def test_sizes_have_units(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "0", "0TB", "-1MB", "1e9", "TB", "2 XB", "nan", "1,5GB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size above 0 such as 2TB"):
        parse_size(text)
