"""Steps towards a minimum from the gradients so far: BFGS as in ASE, with limited memory for large structures.

As in ASE, the curvature is 70 eV/Å^2 to begin with, and no atom moves by more than 0.2 Å in a step.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.linalg import blas, lapack

CURVATURE = 70.0
"""eV/Å^2, before anything is known."""
LONGEST = 0.2
"""Å: longest step of an atom."""
LARGE = 150
"""Rows, beyond which a Hessian takes longer than the forces."""
MEMORY = 50
"""Steps in the history of a large structure."""


class QuasiNewton:
    """Steps of one structure; the model of its energy is that of the subclass."""

    def __init__(self) -> None:
        self.last: tuple[np.ndarray, np.ndarray] | None = None  # positions and gradient before the step

    def step(self, positions: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """The next step [n, 3] Å from positions [n, 3] Å and the gradient [n, 3] eV/Å there."""
        x, g = positions.ravel(), gradient.ravel()
        if self.last is not None:
            self.learn(x - self.last[0], g - self.last[1])
        self.last = x, g
        step = self.newton(g).reshape(-1, 3)
        length = np.sqrt((step**2).sum(axis=1).max())
        return step * (LONGEST / length) if length >= LONGEST else step

    def learn(self, s: np.ndarray, y: np.ndarray) -> None:
        """Take in that the gradient changed by y along a step s."""
        raise NotImplementedError

    def newton(self, gradient: np.ndarray) -> np.ndarray:
        """The step to the minimum of the model."""
        raise NotImplementedError


class Bfgs(QuasiNewton):
    """ASE's BFGS: the Hessian itself, steps downhill along directions of negative curvature.

    Where all curvatures are positive, the step by a Cholesky factorization is that by ASE's eigenvectors.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.hessian = np.asfortranarray(CURVATURE * np.eye(3 * rows))  # the lower triangle

    def learn(self, s: np.ndarray, y: np.ndarray) -> None:
        hs = blas.dsymv(1.0, self.hessian, s, lower=1)
        along, known = float(s @ y), float(s @ hs)
        if np.abs(s).max() >= 1e-7 and along and known:
            self.hessian = blas.dsyr(1.0 / along, y, lower=1, a=self.hessian, overwrite_a=1)
            self.hessian = blas.dsyr(-1.0 / known, hs, lower=1, a=self.hessian, overwrite_a=1)

    def newton(self, gradient: np.ndarray) -> np.ndarray:
        factor, indefinite = lapack.dpotrf(self.hessian, lower=1, clean=0)
        if not indefinite:
            return -np.asarray(lapack.dpotrs(factor, gradient, lower=1)[0])
        curvature, vectors = np.linalg.eigh(self.hessian)
        return -vectors @ (gradient @ vectors / np.abs(curvature))


class LimitedBfgs(QuasiNewton):
    """L-BFGS, Nocedal, Math. Comput. 35, 773 (1980): the last steps alone."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=MEMORY)  # s, y, 1 / s.y

    def learn(self, s: np.ndarray, y: np.ndarray) -> None:
        along = float(s @ y)
        if along > 1e-10 * np.linalg.norm(s) * np.linalg.norm(y):  # else it leads uphill
            self.pairs.append((s, y, 1.0 / along))

    def newton(self, gradient: np.ndarray) -> np.ndarray:
        q, shares = gradient.copy(), []
        for s, y, rho in reversed(self.pairs):
            shares.append(rho * (s @ q))
            q -= shares[-1] * y
        q /= CURVATURE
        for (s, y, rho), share in zip(self.pairs, reversed(shares), strict=True):
            q += (share - rho * (y @ q)) * s
        return -q


def quasi_newton(rows: int) -> QuasiNewton:
    """For a structure of so many rows: its atoms, and three of its cell if that relaxes."""
    return Bfgs(rows) if rows <= LARGE else LimitedBfgs()
