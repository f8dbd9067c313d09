"""Energies of atoms and molecules from the last hidden layer, and the adjoint that a force begins with."""
