"""A molecule of QM9 as its published files have it."""

from ase.build import molecule


def methane(number, energy=-40.47893):
    """A molecule in QM9's own format."""
    lines = [
        "5",
        f"gdb {number}\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t",
    ]
    lines[1] += f"{energy}\t-40.476062\t-40.475117\t-40.498597\t6.469\t"
    for k, atom in enumerate(molecule("CH4")):
        lines.append(f"{atom.symbol}\t" + "\t".join(f"{x:.10f}" for x in atom.position + 0.01 * k) + "\t-0.535689")
    lines[3] = "H\t 0.0021504160\t-6.0313176*^-3\t 0.0019761204\t 0.133921"
    lines[2] = "C\t 0.0\t 1.0858041578\t 0.0080009958\t-0.535689"
    return "\n".join([*lines, "1341.307\t1341.3284", "C\tC", "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4"]) + "\n"
