from __future__ import annotations

import random

import numpy as np
import torch

from mmlckd.resumability.random_state_hook import random_state, set_random_state


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_every_generator_is_put_back():
    state = random_state()
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first


def test_states_survive_a_checkpoint(tmp_path):
    from mmlckd.checkpoints import read_checkpoint

    torch.save(dict(state_dict={}, random_states=[random_state()]), tmp_path / 'c.pth')
    first = draw()
    set_random_state(read_checkpoint(str(tmp_path / 'c.pth'))['random_states'][0])
    assert draw() == first
