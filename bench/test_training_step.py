"""One step of AdamW, of the paper's batches: `pytest bench/test_training_step.py`."""


def test_training_step(measure, side):
    """Energies and forces of ten ethanol molecules."""
    measure("ethanol-10", "training_step", side)


def test_training_on_energies(measure, side):
    """Energies of a hundred small molecules."""
    measure("qm9-100", "training_energy", side)
