"""Tests of compiled kernels need the emulator: `--device emulator`."""

ON_EMULATOR = {"test_kernels.py", "test_controls.py"}


def pytest_ignore_collect(collection_path, config):
    if config.emulator is None and collection_path.name in ON_EMULATOR:
        return True
    return None
