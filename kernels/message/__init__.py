"""Messages between atoms: filter, product and segment sum in one pass, and their adjoint."""
