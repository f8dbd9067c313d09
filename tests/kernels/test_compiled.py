"""Compilation where nothing can be written."""

from painn_fast.kernels import compiled as module


def test_compiles_without_a_cache_where_nothing_can_be_written(monkeypatch):
    asked = []

    def no_place(**options):
        def decorate(function):
            asked.append(options.get("cache", False))
            if options.get("cache"):
                raise RuntimeError("cannot cache function: no locator available")
            return function

        return decorate

    monkeypatch.setattr(module, "njit", no_place)
    assert module.compiled()(abs)(-1) == 1
    assert asked == [True, False]
