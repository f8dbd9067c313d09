"""The ways that `info` reports are those that models take."""

import pytest
import torch
from ase.build import molecule
from conformance import HEADS, OPTIONS, build

import painn_fast as pf
from painn_fast.engine import CpuEngine, select
from painn_fast.engine.paths import Path, paths
from painn_fast.graph import batch_atoms
from painn_fast.io.describe import describe
from painn_fast.io.model_file import save_model
from painn_fast.md import ModelForces
from painn_fast.nn import Potential


@pytest.fixture
def ways(monkeypatch):
    """Those that run, in turn: an engine, or the potential with or without compiled operations."""
    seen = []
    evaluate, forward = CpuEngine._values, Potential._forward

    def by_engine(self, *arguments):
        seen.append("CPU engine")
        return evaluate(self, *arguments)

    def by_itself(self, *arguments):
        seen.append("whole network" if self.fused else "reference")
        return forward(self, *arguments)

    def unchecked(potential):
        """Without a comparison with the reference, which would be seen too."""
        engine = CpuEngine(potential)
        engine.checked = True
        return engine

    monkeypatch.setattr(CpuEngine, "_values", by_engine)
    monkeypatch.setattr(Potential, "_forward", by_itself)
    monkeypatch.setattr(select, "CpuEngine", unchecked)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("option", OPTIONS)
def test_each_purpose_takes_the_way_that_is_reported(option, dtype, ways):
    model, water = build(option, dtype=dtype), molecule("H2O")
    found = {purpose: path.way for purpose, path in paths(model)["cpu"].items()}
    pf.evaluate(model, [water])
    pf.PaiNNCalculator(model).get_potential_energy(water)
    ModelForces(model, water)(torch.tensor(water.positions)[None])
    model(batch_atoms([water], model.cutoff))
    assert ways == [found[purpose] for purpose in ("evaluate", "calculator", "md", "training")]
    assert found["evaluate"] == ("reference" if dtype == torch.bfloat16 else "CPU engine")


@pytest.mark.parametrize("name", ["gap", "dipole", "polarizability", "energies"])
def test_every_property_comes_from_the_engine(name, ways):
    pf.evaluate(build("charge", dtype=torch.float32), [molecule("H2O")], [name])
    assert ways == ["CPU engine"]


def test_a_model_without_an_energy_has_no_dynamics(ways):
    model = build("spin", HEADS[1:], dtype=torch.float32)
    pf.evaluate(model, [molecule("H2O")], ["dipole", "gap"])
    assert ways == ["CPU engine"]
    for device, found in paths(model).items():
        for purpose in ("md", "hessian"):
            assert found[purpose] == Path("none", "the model has no energy"), device


def test_ways_on_a_gpu():
    def on_gpu(option, heads=None):
        found = paths(build(option, heads, dtype=torch.float32))["cuda"]
        return found["evaluate"].way, found["training"].way, found["evaluate"].why

    by_operation = "operation by operation"
    assert on_gpu("sinc")[:2] == ("GPU engine", by_operation)
    for option, way, reason in (
        ("softplus", by_operation, "activation 'shifted_softplus'"),
        ("both_embeddings", by_operation, "embedding of the charge and the spin"),
        ("linear_energy", by_operation, "energy without a hidden layer"),
        ("no_scalar_product", by_operation, "ablation 'no_scalar_product'"),
        ("no_vector_features", "reference", "ablation 'no_vector_features'"),
    ):
        assert on_gpu(option) == (way, way, f"the engine for GPUs does not run: {reason}")


def test_info_reports_them(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(build("charge", dtype=torch.float64), path)
    found = describe(path)["paths"]
    assert found["cpu"]["calculator"] == {"way": "CPU engine", "why": "float64: exact filters, equal to 1e-10"}
    assert found["cpu"]["hessian"]["way"] == "whole network"
    assert "embedding of the charge" in found["cuda"]["md"]["why"]
