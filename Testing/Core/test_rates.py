"""The learning rate over a training."""

import pytest
import torch

from CPS4Core.config import load_settings
from CPS4Core.training.rates import LEAST, cosine_schedule, warm_cosine


def test_the_rate_rises_and_falls_to_near_zero():
    assert [warm_cosine(step, 11) for step in (0, 10)] == pytest.approx([1, LEAST])
    assert warm_cosine(5, 11) == pytest.approx((1 + LEAST) / 2)
    assert [warm_cosine(step, 100, 0.1) for step in (0, 4, 9)] == pytest.approx([1 / 11, 5 / 11, 10 / 11])
    assert warm_cosine(10, 100, 0.1) == 1
    assert warm_cosine(99, 100, 0.1) == pytest.approx(LEAST)
    assert LEAST < 0.01
    assert load_settings("small").train.schedule == "cosine"
    assert load_settings("paper").train.schedule == "drops"


def test_the_schedule_goes_by_steps():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = cosine_schedule(optimizer, 4, 0.25)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5 * warm_cosine(step, 4, 0.25) for step in range(4)])
