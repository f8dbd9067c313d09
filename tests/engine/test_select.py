"""An engine is made once for a model, and goes with it."""

import copy
import gc
import io
import weakref

import torch

from painn_fast.engine import engine_for
from painn_fast.nn import PotentialConfig, RepresentationConfig
from painn_fast.testing import random_potential

SMALL = PotentialConfig(representation=RepresentationConfig(n_features=16, n_layers=1, n_rbf=3, cutoff=3.0))


def test_an_engine_is_kept_with_its_model_and_goes_with_it():
    potential = random_potential(SMALL, dtype=torch.float32)
    engine = engine_for(potential)
    assert engine_for(potential) is engine
    gone = weakref.ref(potential), weakref.ref(engine)
    del potential, engine
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_copies_of_a_model_make_engines_of_their_own():
    potential = random_potential(SMALL, dtype=torch.float32)
    engine = engine_for(potential)
    other = copy.deepcopy(potential)
    assert engine_for(other) is not engine
    assert engine_for(other).potential is other
    file = io.BytesIO()
    torch.save(potential, file)
    file.seek(0)
    assert engine_for(torch.load(file, weights_only=False)) is not engine


def test_changed_buffers_make_a_new_engine():
    potential = random_potential(SMALL, dtype=torch.float32)
    engine = engine_for(potential)
    potential.heads["energy"].mean.add_(1.0)
    assert engine_for(potential) is not engine
