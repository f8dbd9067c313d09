"""Executes the PTX that Triton writes for an NVIDIA GPU, all programs of a launch at once, and looks for races.

`ptx` reads the text, `translate` makes Python of it, `machine` runs that with an array of NumPy for each register, an
element a thread, `memory` notes which threads read and write what, and `driver` is Triton's driver of a GPU: a launch
takes tensors of the CPU, is specialised and compiled as it would be for a device, and its PTX is executed.
"""
