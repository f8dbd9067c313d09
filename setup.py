"""Packages by name: `kernels/` stands at the top level and installs as `painn_fast.kernels`."""

from setuptools import find_packages, setup

kernels = ["painn_fast.kernels", *(f"painn_fast.kernels.{name}" for name in find_packages("kernels"))]

setup(
    packages=[*find_packages(include=["painn_fast", "painn_fast.*"], exclude=["painn_fast.kernels*"]), *kernels],
    package_dir={"painn_fast": "painn_fast", "painn_fast.kernels": "kernels"},
    package_data={
        "painn_fast": [
            "py.typed",
            "models/*.safetensors",
            "models/*.xyz",
            "models/*.md",
            "train/configs/*",
            "bench/*.xyz",
        ],
        "painn_fast.kernels": ["*.md", "*/*.md", "*/*.json"],
    },
)
