"""One step of AdamW on energies and forces of ten ethanol molecules: `pytest bench/test_training_step.py`."""


def test_training_step(measure, side):
    measure("ethanol-10", "training_step", side)
