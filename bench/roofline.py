"""How near to the machine's limits: `python bench/roofline.py RESULTS.json [...] --device cuda`.

The limits are measured here, in float32: a large matrix product for flops, a large copy for bytes. What an evaluation
must do is counted: flops of the products over atoms and of the edges; bytes of every intermediate over atoms, written
once and read once (gathers along edges come from the cache). The roof is the longer of flops / peak and bytes / peak.
"""

import argparse
import time
from collections.abc import Iterator

import torch

from painn_fast.bench.cases import CASES
from painn_fast.bench.floor import shapes
from painn_fast.bench.results import Report, read_report
from painn_fast.bench.table import milliseconds
from painn_fast.nn import RepresentationConfig

PASSES = {"forward": 1, "energy_forces": 2, "training_energy": 3, "training_step": 6}
"""Matrix products in a mode where the forward pass has one."""
EDGE_FLOPS = {"forward": 38, "energy_forces": 38 + 120, "training_energy": 3 * 38, "training_step": 3 * (38 + 120)}
"""An edge and feature, without the filter: twice the multiply-adds that kernels/message/README.md counts."""
INTERMEDIATES = 20
"""Numbers an atom, layer and feature: hidden F, x 3 F, s F, v 3 F, [V, W] 6 F, context 2 F, hidden F, gates 3 F."""


def flops(atoms: int, edges: int, mode: str, config: RepresentationConfig) -> float:
    """Of one call."""
    products = sum(2 * rows * n_in * n_out for rows, n_in, n_out in shapes(atoms, config))
    a_filter = 2 * 3 * (config.n_rbf + 1)
    edge = edges * config.n_layers * config.n_features * (EDGE_FLOPS[mode] + PASSES[mode] * a_filter)
    return float(PASSES[mode] * products + edge)


def bytes_moved(atoms: int, mode: str, config: RepresentationConfig) -> float:
    """Of one call, to and from memory."""
    numbers = INTERMEDIATES * atoms * config.n_layers * config.n_features
    return 4.0 * 2 * PASSES[mode] * numbers


def peaks(device: torch.device, *, quick: bool = False) -> tuple[float, float]:
    """Flops and bytes a second, the best of several tries."""
    n = 1024 if quick or device.type == "cpu" else 8192
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    source = torch.empty(2**24 if device.type == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    source.zero_()
    compute = 2.0 * n**3 / _best(lambda: torch.mm(a, b), device)
    return compute, 2.0 * 4 * source.numel() / _best(lambda: target.copy_(source), device)


def _best(work, device: torch.device, tries: int = 10) -> float:
    times = []
    for _ in range(tries + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[2:])


def lines(report: Report, top_flops: float, top_bytes: float) -> Iterator[str]:
    """Of the table, one a measured side of a case in a mode."""
    config = RepresentationConfig.parse(dict(report.model))
    for result in report.results:
        if result.median is None or result.mode not in PASSES or result.side == "dimenet" or result.case not in CASES:
            continue
        compute = flops(result.atoms, result.edges, result.mode, config) / result.median
        memory = bytes_moved(result.atoms, result.mode, config) / result.median
        percent = [100 * compute / top_flops, 100 * memory / top_bytes]
        yield (
            f"{result.case} {result.mode} {result.side}".ljust(50)
            + f"{milliseconds(result.median):>9}{compute / 1e12:>10.3g}{percent[0]:>8.1f}"
            + f"{memory / 1e9:>9.3g}{percent[1]:>8.1f}{max(percent):>8.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", help="files that `painn-fast bench --out` wrote")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a smaller product for the peak")
    given = parser.parse_args()
    reports = [read_report(path) for path in given.results]
    top_flops, top_bytes = peaks(torch.device(given.device), quick=given.quick)
    print(f"peak: {top_flops / 1e12:.3g} Tflop/s in float32, {top_bytes / 1e9:.4g} GB/s copied")
    print(f"{'':<50}{'ms':>9}{'Tflop/s':>10}{'% peak':>8}{'GB/s':>9}{'% peak':>8}{'% roof':>8}")
    for report in reports:
        for line in lines(report, top_flops, top_bytes):
            print(line)


if __name__ == "__main__":
    main()
