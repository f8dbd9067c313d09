"""How a Hessian is computed, by a name that settings need without what computes it."""

from typing import Literal

Method = Literal["differences", "analytic"]
METHODS: tuple[Method, ...] = ("differences", "analytic")
