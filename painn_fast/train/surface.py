"""How rough the surface of a finished model is, for its card."""

from __future__ import annotations

import ase
import numpy as np

from painn_fast.errors import PaiNNFastError
from painn_fast.nn import Potential
from painn_fast.train.data import Dataset
from painn_fast.vibrations.derivatives import in_float64
from painn_fast.vibrations.harmonic import ROUGH, Roughness, roughness
from painn_fast.vibrations.relax import relax

MOST_ATOMS = 64
"""Of a molecule whose Hessian, 3 n second derivatives, is worth the time at the end of a training."""


FEW_ATOMS = 12
"""Of a molecule that is relaxed in plain PyTorch."""


def surface(model: Potential, data: Dataset) -> dict[str, float | str]:
    """Roughness at the minimum next to the structure of lowest energy of a set of one molecule.

    Returns:
        "largest" and "mean" in cm-1, as in `painn_fast.spectra.Roughness`, and "at", the structure; or "left_out", why
        there is none.
    """
    reason = _why_not(model, data)
    if reason:
        return {"left_out": reason}
    energy = data.labels.get("energy", np.full(len(data), np.nan))
    row = int(np.nanargmin(energy)) if np.isfinite(energy).any() else 0  # the lowest
    try:
        rough = _roughness(model, data.atoms(row))
    except (PaiNNFastError, np.linalg.LinAlgError) as error:  # a model that was hardly trained need not have a minimum
        return {"left_out": f"no minimum near {data.name(row)}: {error}"}
    return {"largest": rough.largest, "mean": rough.mean, "at": data.name(row)}


def _roughness(model: Potential, atoms: ase.Atoms) -> Roughness:
    """As `roughness`, of a few atoms without the engine in float64: compiling that takes longer than these forces."""
    if len(atoms) > FEW_ATOMS:
        return roughness(model, atoms)
    double = in_float64(model)
    with double.reference():
        minimum = relax(double, atoms)
    return roughness(model, minimum, relaxed=True)


def describe_surface(values: dict[str, float | str]) -> str:
    """For the card: the result of `surface` as a sentence."""
    if "left_out" in values:
        return f"not computed: {values['left_out']}"
    text = (
        f"at most {values['largest']:.2f} cm-1, {values['mean']:.2f} cm-1 in the mean, between harmonic lines of the "
        f"analytic Hessian and of central differences, at the minimum near {values['at']}"
    )
    if float(values["largest"]) <= ROUGH:
        return text
    return f"{text}; above {ROUGH:g} cm-1, lines are no surer than that: train with a larger representation.epsilon"


def _why_not(model: Potential, data: Dataset) -> str | None:
    if "forces" not in model.properties:
        return "the model has no forces"
    if not len(data):
        return "no structures"
    if data.pbc.any():
        return "structures are periodic"
    n = int(data.n_atoms[0])
    if (data.n_atoms != n).any() or (data.numbers.reshape(-1, n) != data.numbers[:n]).any():
        return "structures are of different molecules"
    if not 2 <= n <= MOST_ATOMS:
        return f"molecules of {n} atoms, where 2 to {MOST_ATOMS} are analysed"
    return None
