"""Labels by PySCF: Kohn-Sham DFT or Hartree-Fock with density fitting."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import ase
import numpy as np

from painn_fast import units
from painn_fast.errors import PaiNNFastError
from painn_fast.graph.charge import charge_and_multiplicity

TOLERANCE = 1e-3
"""bohr³, of the last change of a polarizability."""
PASSES = 40
"""At most, of the linear response; aspirin takes five."""
INDEPENDENT = 1e-6
"""Least singular value of directions that are new, over the largest."""
OPTIONS = ("grid_level", "conv_tol", "memory")


def method(
    level: str, options: dict[str, Any], with_forces: bool = True
) -> Callable[[ase.Atoms, bool], dict[str, Any]]:
    """A level of theory as a method; the gradient includes the response of the grid.

    Args:
        level: "PBE0/def2-SVPD", or "HF/BASIS".
        options: grid_level, conv_tol (Hartree) and memory (MB).
        with_forces: whether forces are computed.

    Raises:
        PaiNNFastError: for a level or options that it does not understand.
    """
    unknown = options.keys() - {*OPTIONS}
    if "/" not in level or unknown:
        raise PaiNNFastError(
            "pyscf does not understand this",
            got=", ".join(sorted(unknown)) or repr(level),
            expected=f"a level such as PBE0/def2-SVPD; options {', '.join(OPTIONS)}",
        )
    from pyscf import lib

    lib.num_threads(1)

    def label(atoms: ase.Atoms, with_polarizability: bool) -> dict[str, Any]:
        with products_by_numpy():
            field = field_of(atoms, level, options)
            energy = field.kernel()
            if not field.converged:
                raise PaiNNFastError("the self-consistent field did not converge")
            labels: dict[str, Any] = {
                "energy": float(energy) * units.HARTREE,
                "dipole": field.dip_moment(unit="AU", verbose=0) * units.BOHR,
            }
            if with_forces:
                slope = field.nuc_grad_method()
                slope.grid_response = True
                labels["forces"] = -slope.kernel() * (units.HARTREE / units.BOHR)
            if with_polarizability:
                labels["polarizability"] = polarizability(field)
            return labels

    return label


@contextlib.contextmanager
def products_by_numpy() -> Iterator[None]:
    """PySCF's matrix products by NumPy's library, in this block.

    The one in PySCF's wheels is of 2018: on an Intel Xeon with AVX-512 it takes 3.5 to 7 times as long, and is most of
    a label. Where PySCF has no such function, nothing changes.
    """
    from pyscf.lib import numpy_helper

    own = getattr(numpy_helper, "_dgemm", None)
    names = "trans_a trans_b m n k a b c alpha beta offseta offsetb offsetc"
    if own is None or " ".join(inspect.signature(own).parameters) != names:
        yield
        return

    def product(
        trans_a: str, trans_b: str, m: int, n: int, k: int, a: Any, b: Any, c: Any,
        alpha: float = 1, beta: float = 0, offseta: int = 0, offsetb: int = 0, offsetc: int = 0,
    ) -> Any:  # fmt: skip
        left, right = (a if trans_a == "N" else a.T), (b if trans_b == "N" else b.T)
        if offseta or offsetb or offsetc or (left.shape, right.shape, c.shape) != ((m, k), (k, n), (m, n)):
            return own(trans_a, trans_b, m, n, k, a, b, c, alpha, beta, offseta, offsetb, offsetc)
        if beta:
            c *= beta
            c += alpha * (left @ right)
        else:
            np.matmul(left, right, out=c)
            if alpha != 1:
                c *= alpha
        return c

    numpy_helper._dgemm = product
    try:
        yield
    finally:
        numpy_helper._dgemm = own


def field_of(atoms: ase.Atoms, level: str, options: dict[str, Any]) -> Any:
    """A self-consistent field of PySCF that is not solved yet."""
    from pyscf import dft, gto, scf

    xc, _, basis = level.partition("/")
    where = atoms.get_chemical_formula()
    charge, multiplicity = charge_and_multiplicity(atoms.info, where=where)
    if atoms.pbc.any():
        got = f"pbc={atoms.pbc.tolist()}"
        raise PaiNNFastError("pyscf labels molecules in vacuum", where=where, got=got, fix="choose another method")
    if charge != int(charge):
        raise PaiNNFastError("a charge that no molecule has", where=where, got=charge, expected="a whole number")
    spin = int(multiplicity) - 1
    molecule = gto.M(
        atom=[(int(z), position) for z, position in zip(atoms.numbers, atoms.positions, strict=True)],
        basis=basis,
        charge=int(charge),
        spin=spin,
        unit="Angstrom",
        verbose=0,
        max_memory=float(options.get("memory", 4000)),
    )
    if xc.upper() == "HF":
        field = (scf.UHF if spin else scf.RHF)(molecule).density_fit()
    else:
        field = (dft.UKS if spin else dft.RKS)(molecule, xc=xc.lower()).density_fit()
        field.grids.level = int(options.get("grid_level", 2))
    field.conv_tol = float(options.get("conv_tol", 1e-9))
    field.with_df.build()  # or integrals of functionals without exact exchange are computed again in each iteration
    return field


def polarizability(field: Any) -> np.ndarray:
    """Static polarizability [3, 3] Å³ of a solved field, by its linear response.

    Rotations x_ai of orbitals i into a solve (e_a - e_i) x_ai + v[x]_ai = -r_ai. In y = sqrt(e_a - e_i) x the matrix is
    1 + K with a symmetric K, and the polarizability is stationary: its error is quadratic in that of y. Each pass adds
    the residuals of the three directions to the space in which the equations are solved.

    Raises:
        PaiNNFastError: if it does not converge.
    """
    from pyscf.scf import _response_functions  # noqa: F401  which gives fields their gen_response

    closed = field.mo_coeff.ndim == 2
    coefficients, energies, occupations = (
        value[None] if closed else value for value in (field.mo_coeff, field.mo_energy, field.mo_occ)
    )
    spins = [
        (c[:, n == 0], c[:, n > 0], np.sqrt(e[n == 0][:, None] - e[n > 0]))
        for c, e, n in zip(coefficients, energies, occupations, strict=True)
    ]
    ends = np.cumsum([root.size for _, _, root in spins])[:-1]
    induced, electrons = field.gen_response(hermi=1), 2.0 if closed else 1.0

    def rotations(matrices: np.ndarray) -> np.ndarray:
        """[n, D] of matrices of each spin [S, n, K, K] between atomic orbitals."""
        pairs = zip(spins, matrices, strict=True)
        parts = [(np.einsum("pa,npq,qi->nai", a, own, i, optimize=True) / root) for (a, i, root), own in pairs]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def response(y: np.ndarray) -> np.ndarray:
        """(1 + K) y of y [n, D]."""
        pairs = zip(spins, np.split(y, ends, axis=1), strict=True)
        halves = [
            np.einsum("pa,nai,qi->npq", a, part.reshape(-1, *root.shape) / root, i, optimize=True)
            for (a, i, root), part in pairs
        ]
        density = electrons * np.array([half + half.transpose(0, 2, 1) for half in halves])  # [S, n, K, K]
        potential = induced(density[0])[None] if closed else induced(density)
        return y + rotations(potential)

    position = field.mol.intor_symmetric("int1e_r", comp=3)
    right = rotations(np.broadcast_to(position, (len(spins), *position.shape)))
    vectors, images, before, block = np.empty((0, right.shape[1])), np.empty((0, right.shape[1])), np.inf, right
    for _ in range(PASSES):
        block = _orthonormal(block, vectors)
        vectors, images = np.concatenate([vectors, block]), np.concatenate([images, response(block)])
        matrix, projected = vectors @ images.T, vectors @ right.T
        tensor = 2.0 * electrons * projected.T @ np.linalg.solve(0.5 * (matrix + matrix.T), projected)
        if np.abs(tensor - before).max() < TOLERANCE or len(vectors) == right.shape[1]:
            return 0.5 * (tensor + tensor.T) * units.BOHR**3
        before, block = tensor, images[-len(block) :]
    raise PaiNNFastError("the linear response did not converge", got=f"{PASSES} passes")


def _orthonormal(block: np.ndarray, to: np.ndarray) -> np.ndarray:
    """A basis [m, D] of what a block [n, D] has beyond orthonormal vectors [k, D]."""
    for _ in range(2):  # the second time for what rounding left
        block = block - block @ to.T @ to
    _, size, basis = np.linalg.svd(block, full_matrices=False)
    return basis[size > INDEPENDENT * size[0]]
