"""The structures are those of their description, the same every time."""

import runpy
from itertools import combinations
from pathlib import Path

import ase.io
import networkx
import numpy as np
import pytest
from ase.data import covalent_radii

from painn_fast.bench.cases import CASES, choose, molecules
from painn_fast.bench.problem import Problem
from painn_fast.errors import PaiNNFastError
from painn_fast.evaluate import evaluate
from painn_fast.graph import batch_atoms
from painn_fast.nn import PotentialConfig, RepresentationConfig
from painn_fast.testing import assert_close, random_potential

ROOT = Path(__file__).parents[2]
VALENCE = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}


def bonds(atoms):
    """The molecule as a graph with elements at its nodes."""
    distance, radius = atoms.get_all_distances(), covalent_radii[atoms.numbers]
    graph = networkx.Graph(
        (int(i), int(j)) for i, j in np.argwhere(distance < 1.3 * (radius[:, None] + radius)) if i < j
    )
    networkx.set_node_attributes(graph, dict(enumerate(atoms.numbers.tolist())), "element")
    return graph


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.copies <= 32])
def test_no_atoms_overlap(name):
    batch = batch_atoms(CASES[name].structures()[:64], 2.0, neighbors="list")
    limit = 0.9 if "water" in name or "scaling" in name else 0.8
    assert float(batch.edge_vectors().norm(dim=1).min()) > limit, "0.1 Å for being rattled"


@pytest.mark.parametrize("name", CASES)
def test_structures_are_the_same_every_time_and_as_many_as_stated(name):
    case = CASES[name]
    if case.atoms > 10_000:
        pytest.skip("a repetition of what is tested here")
    first, second = case.structures(), case.structures()
    assert first == second
    assert sum(map(len, first)) == case.atoms
    if not name.startswith("scaling"):
        assert len(first) == {"water-216": 1}.get(name, int(name.rsplit("-", 1)[1]))


def test_sizes_of_the_scaling_boxes_cover_three_decades():
    sizes = [case.atoms for case in choose(["scaling"])]
    assert sizes == sorted(sizes)
    assert sizes[0] <= 100
    assert 90_000 <= sizes[-1] <= 100_000
    assert [case.name for case in choose(["scaling"])] == [f"scaling-{size}" for size in sizes]


def test_water_has_its_density():
    for name in ("water-216", "scaling-1152"):
        (box,) = CASES[name].structures()
        assert box.get_masses().sum() / box.get_volume() * 1.66054 == pytest.approx(0.997, abs=2e-3), "g/cm³"


def test_qm9_like_molecules_are_fifty_different_ones_of_that_kind():
    found = molecules(":50")
    assert len(found) == 50
    sizes = [len(atoms) for atoms in found]
    assert max(sizes) <= 29
    assert 17 < np.mean(sizes) < 19
    graphs = [bonds(atoms) for atoms in found]
    for atoms, graph in zip(found, graphs, strict=True):
        assert set(atoms.numbers) <= set(VALENCE)
        assert 7 <= (atoms.numbers > 1).sum() <= 9
        assert networkx.is_connected(graph)
        assert len(graph) == len(atoms)
        for atom, degree in graph.degree:
            assert degree <= VALENCE[int(atoms.numbers[atom])], f"{atoms.symbols}, atom {atom}"
    for a, b in combinations(graphs, 2):
        same = networkx.faster_could_be_isomorphic(a, b) and networkx.is_isomorphic(
            a, b, node_match=lambda p, q: p["element"] == q["element"]
        )
        assert not same


def test_qm9_like_molecules_are_clear_of_themselves():
    for atoms in molecules(":50"):
        distance = atoms.get_all_distances()
        np.fill_diagonal(distance, np.inf)
        assert distance.min() > 0.9
        for i, j in bonds(atoms).edges:
            distance[i, j] = distance[j, i] = np.inf
        assert distance.min() > 1.6, atoms.symbols


def test_the_recipe_makes_the_file_again(tmp_path):
    runpy.run_path(ROOT / "bench" / "molecules.py")["write"](tmp_path / "again.xyz")
    again = ase.io.read(tmp_path / "again.xyz", ":")
    shipped = molecules(":")
    assert [atoms.info["name"] for atoms in again] == [atoms.info["name"] for atoms in shipped]
    for one, other in zip(again, shipped, strict=True):
        assert one.numbers.tolist() == other.numbers.tolist()
        assert np.abs(one.positions - other.positions).max() < 1e-6


def test_aspirin_is_aspirin():
    (atoms,) = molecules("100:")
    graph = bonds(atoms)
    assert atoms.get_chemical_formula() == "C9H8O4"
    assert networkx.is_connected(graph)
    kinds = sorted("".join(sorted(atoms.symbols[[i, j]])) for i, j in graph.edges)
    assert {kind: kinds.count(kind) for kind in kinds} == {"CC": 8, "CH": 7, "CO": 5, "HO": 1}
    (ring,) = networkx.cycle_basis(graph)
    assert len(ring) == 6
    carried = [i for i in ring if not any(atoms.numbers[j] == 1 for j in graph[i])]
    assert len(carried) == 2
    assert graph.has_edge(*carried), "the acids are beside each other"


def test_a_repeated_box_has_the_forces_of_its_unit_repeated():
    config = RepresentationConfig(n_features=8, n_layers=2, n_rbf=5, cutoff=4.0)
    potential = random_potential(PotentialConfig(representation=config)).float()
    problem = Problem(CASES["scaling-288"], "energy_forces", potential)
    whole = evaluate(potential.double(), problem.structures, backend="reference")
    assert_close(problem.expected["energy"], whole["energy"], 1e-12, "energy")
    assert_close(problem.expected["forces"], whole["forces"][0], 1e-9, "forces")


def test_unknown_case_is_refused():
    with pytest.raises(PaiNNFastError, match=r"no such case.*ethanol-2.*qm9-50"):
        choose(["ethanol-2"])
