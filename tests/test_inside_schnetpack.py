"""Accelerated models inside of SchNetPack: restored, in its calculator, its dynamics and its training."""

import pytest
import torch
from accelerated_models import both, frames, values
from torch import nn

import painn_fast as pf
from painn_fast.errors import PaiNNFastError
from painn_fast.schnetpack import PaiNN
from painn_fast.testing import TABLE_TOLERANCE, TOLERANCE, assert_close


def test_restore_gives_back_the_classes_numbers_and_parameters(spk):
    plain, live = both(spk)
    with spk.installed():
        assert pf.restore(live) is live
        assert pf.restore(live) is live
    assert [type(module) for module in live.modules()] == [type(module) for module in plain.modules()]
    inputs = spk.batch(frames(), torch.float64)
    assert (values(live, inputs)["forces"] == values(plain, inputs)["forces"]).all()
    assert pf.accelerate(live).representation.path == "compiled"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_restored_model_can_be_scripted(spk):
    if spk.__name__ != "real_schnetpack":
        pytest.skip("the stand-in cannot be scripted")
    live = pf.accelerate(spk.model(postprocessors=[]))
    torch.jit.script(pf.restore(live))


def test_a_representation_of_our_class_becomes_one_of_schnetpack(spk):
    ours = PaiNN(8, 2, spk.GaussianRBF(6, 4.0), spk.CosineCutoff(4.0))
    live = spk.model()
    live.representation = ours
    inputs = spk.batch(frames())
    expected = values(live, inputs)
    with spk.installed():
        pf.restore(live)
    assert type(live.representation) is type(spk.model().representation)
    assert_close(values(live, inputs)["forces"], expected["forces"], 1e-5)


def test_restore_refuses_other_modules():
    with pytest.raises(PaiNNFastError, match=r"not an accelerated model.*Linear"):
        pf.restore(nn.Linear(2, 2))


@pytest.fixture
def real(spk):
    if spk.__name__ != "real_schnetpack":
        pytest.skip("SchNetPack itself is needed")
    return pytest.importorskip("schnetpack")


@pytest.fixture
def files(real, spk, tmp_path):
    """An untouched model and the same, accelerated, as SchNetPack saves them."""
    models = both(spk, torch.float32, postprocessors=[])
    return [spk.save(model, tmp_path / name) for model, name in zip(models, ("plain", "live"), strict=True)]


@pytest.fixture
def whole_pickles(monkeypatch):
    """SchNetPack 2.1 loads its models by `torch.load` of a torch that reads every pickle."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.mark.filterwarnings("ignore")
def test_the_calculator_of_schnetpack_gives_the_same(real, files, whole_pickles):
    results = []
    for path in files:
        neighbors = real.transform.ASENeighborList(cutoff=4.0)
        calculator = real.interfaces.SpkCalculator(str(path), neighbors, energy_unit="eV", dtype=torch.float64)
        atoms = frames()[1]
        atoms.calc = calculator
        results.append((atoms.get_potential_energy(), atoms.get_forces()))
        assert type(calculator.model.representation) is (PaiNN if "live" in str(path) else real.representation.PaiNN)
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-10)
    assert_close(results[1][1], results[0][1], 1e-10)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
def test_dynamics_of_schnetpack_are_the_same(real, files, whole_pickles, dtype):
    md = pytest.importorskip("schnetpack.md")
    from schnetpack.md.calculators import SchNetPackCalculator
    from schnetpack.md.integrators import RingPolymer
    from schnetpack.md.neighborlist_md import NeighborListMD

    ends = []
    for path in files:
        system = md.System()
        system.load_molecules([frames()[0]], n_replicas=3, position_unit_input="Angstrom")
        torch.manual_seed(0)
        md.initial_conditions.MaxwellBoltzmannInit(300).initialize_system(system)
        neighbors = NeighborListMD(4.0, 1.0, real.transform.ASENeighborList)
        calculator = SchNetPackCalculator(str(path), "forces", "eV", "Angstrom", neighbors, energy_key="energy")
        integrator = RingPolymer(0.2, 3, 300)
        md.Simulator(system, integrator, calculator, progress=False).to(dtype).simulate(4)
        ends.append((system.positions, calculator.results["forces"]))
    assert calculator.model.path.startswith("engine" if dtype == torch.float32 else "modules: float64")
    for got, expected in zip(*reversed(ends), strict=True):
        assert_close(got, expected, 1e-9 if dtype == torch.float64 else TABLE_TOLERANCE)


class Labelled:
    """Three batches, made anew each time: a model writes into them."""

    def __init__(self, spk):
        self.spk = spk

    def __len__(self):
        return 3

    def __getitem__(self, index):
        labels = {"energy": torch.ones(3, dtype=torch.float64), "forces": torch.zeros(18, 3, dtype=torch.float64)}
        return self.spk.batch(frames(), torch.float64) | labels


@pytest.mark.filterwarnings("ignore")
def test_a_training_by_lightning_is_the_same(real, spk, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")
    ends = []
    for model in both(spk, postprocessors=[]):
        outputs = [spk.ModelOutput("energy"), spk.ModelOutput("forces")]
        task = real.task.AtomisticTask(model.train(), outputs, torch.optim.SGD, {"lr": 1e-5})
        loader = torch.utils.data.DataLoader(Labelled(spk), batch_size=None)
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, inference_mode=False,
        )  # fmt: skip
        trainer.fit(task, loader, loader)
        ends.append(model)
    for name, parameter in ends[0].named_parameters():
        assert_close(ends[1].get_parameter(name).detach(), parameter.detach(), 1e-10, name)
