"""Launch configurations: read once, checked, and tuned by what is fast and right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from painn_fast.kernels import launch as tuning
from painn_fast.kernels.node.triton import numbers_of
from painn_fast.kernels.tools.tuning import layers, subjects, tuner

SHIPPED = sorted(tuning.FOLDER.glob("*.json"))
ANY = {"warps": 4, "columns": 128, "elements": 512}


@pytest.fixture(autouse=True)
def read_anew():
    tuning.named.cache_clear()
    yield
    tuning.named.cache_clear()


@pytest.fixture
def content():
    """A file for a GPU that does not exist."""
    measured = {"date": "2026-01-01T00:00:00+00:00", "driver": "1", "versions": {}}
    return {"format": 1, "gpu": "NVIDIA Test-1 (x)", "measured": measured, "launches": {"update": dict(ANY)}}


def saved(folder, content):
    path = folder / "nvidia-test-1-x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_right(path):
    numbers = tuning.read(path, None if path.stem == "default" else tuning.default())
    assert set(numbers) <= set(tuning.default())


def test_every_launch_has_numbers_that_the_tuner_knows():
    here = torch.device(os.environ["KERNELS_ON"])
    listed = [*subjects.subjects({"tiny": [2]}, here), *layers.layer_subjects(here, 1)[:1]]
    assert {s.name for s in listed} | set(layers.sizes(1)) == set(tuning.default())
    for name, numbers in tuning.default().items():
        assert set(numbers) <= set(tuner.VALUES), name
        for key, values in tuner.VALUES.items():
            assert max(values) <= tuning.LARGEST[key]


def test_a_gpu_that_nobody_measured_has_the_default():
    assert tuning.named("Unheard of") == tuning.default() == tuning.launches(torch.device("cpu"))


def test_a_file_in_the_folder_of_the_environment_counts_and_what_it_leaves_out_is_the_default(
    content, tmp_path, monkeypatch
):
    saved(tmp_path, content)
    monkeypatch.setenv(tuning.VARIABLE, str(tmp_path))
    content["launches"]["update"]["warps"] = 1  # the file has been written
    got = tuning.named("NVIDIA Test-1 (x)")
    assert got == tuning.default() | {"update": ANY}


BROKEN = {
    "no JSON": (lambda c: "{", "not a JSON file; where: .*nvidia-test-1-x.json; got: Expecting"),
    "a missing key": (lambda c: c.pop("measured") and c, "not the keys of a tuning file; .*expected: format, gpu, "),
    "a list": (lambda c: "[]", r"not the keys of a tuning file; where: .*; got: \[\]"),
    "another format": (lambda c: c | {"format": 2}, "another format; where: .*format; got: 2; expected: 1"),
    "another GPU": (lambda c: c | {"gpu": "NVIDIA A1"}, "another GPU; .*got: NVIDIA A1; expected: the name of the GPU"),
    "nothing measured": (lambda c: c | {"measured": None}, "not the keys of a tuning file; where: .*measured; "),
    "no launches": (lambda c: c | {"launches": 3}, "no launches; where: .*launches; got: 3"),
    "another kernel": (
        lambda c: c | {"launches": {"updates": ANY}},
        "no such kernel; .*got: updates; expected: update; fix: delete the file, or write it anew by",
    ),
    "another number": (
        lambda c: c | {"launches": {"update": ANY | {"rows": 1}}},
        "not the numbers of this launch; where: .*launches, update; .*expected: columns, elements, warps",
    ),
    "a missing number": (lambda c: c | {"launches": {"update": {"warps": 4}}}, "not the numbers of this launch"),
    "no power of two": (
        lambda c: c | {"launches": {"update": ANY | {"warps": 3}}},
        "launches, update, warps; got: 3; expected: a power of two from 1 to 32",
    ),
    "too many": (lambda c: c | {"launches": {"update": ANY | {"warps": 64}}}, "got: 64; expected: a power of two"),
    "no integer": (lambda c: c | {"launches": {"update": ANY | {"warps": True}}}, "got: True; expected: a power"),
    "a word": (lambda c: c | {"launches": {"update": ANY | {"warps": "4"}}}, "got: '4'; expected: a power of two"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_says_what_is_wrong_with_it(content, tmp_path, monkeypatch, case):
    change, message = BROKEN[case]
    saved(tmp_path, change(content))
    monkeypatch.setenv(tuning.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=message):
        tuning.named("NVIDIA Test-1 (x)")


def fake(costs, *, wrong=lambda numbers: False, refused=lambda numbers: False):
    """A launch whose numbers decide its time, its results and whether it runs at all; nothing of it is real."""
    numbers = {"warps": 2, "features": 2, "programs": 4096}

    def call():
        if refused(numbers):
            raise RuntimeError("out of resources\nat length")
        return [torch.ones(3) * (2 if wrong(numbers) else 1)]

    subject = tuner.Subject("fake", {"a": call, "b": call}, {"a": [torch.ones(3)], "b": [torch.ones(3)]})
    return subject, numbers, lambda call: costs(numbers)


def slowness(numbers):
    """Best at 4 warps, 1 feature and 1024 programs."""
    return abs(numbers["warps"] - 4) + numbers["features"] + numbers["programs"] / 1024


def never():
    return False


def test_the_fastest_numbers_are_found_and_those_in_force_are_left_alone():
    subject, numbers, timer = fake(slowness)
    outcome = tuner.search(subject, numbers, timer, never)
    assert outcome.numbers == {"warps": 4, "features": 1, "programs": 1024}
    assert (outcome.before, outcome.after) == ({"a": 8, "b": 8}, {"a": 2, "b": 2})
    assert numbers == {"warps": 2, "features": 2, "programs": 4096}


def test_fast_numbers_with_wrong_results_or_none_are_rejected():
    subject, numbers, timer = fake(slowness, wrong=lambda n: n["warps"] == 4, refused=lambda n: n["features"] == 1)
    outcome = tuner.search(subject, numbers, timer, never)
    assert outcome.numbers == {"warps": 2, "features": 2, "programs": 1024}
    assert any("result 0 of a is off by 1.0e+00" in line for line in outcome.messages)
    assert any(line.endswith("RuntimeError: out of resources") for line in outcome.messages)


def test_results_that_are_not_finite_are_wrong():
    subject = tuner.Subject("fake", {"a": lambda: [torch.tensor([float("nan")])]}, {"a": [torch.ones(1)]})
    assert "off by nan" in tuner.complaint(subject)


def test_a_gain_within_the_noise_changes_nothing():
    subject, numbers, timer = fake(lambda n: 1.0 if n["warps"] == 2 else 0.99)
    assert tuner.search(subject, numbers, timer, never).numbers == numbers


def test_numbers_that_do_not_run_are_replaced_by_some_that_do():
    subject, numbers, timer = fake(slowness, refused=lambda n: n["programs"] == 4096)
    outcome = tuner.search(subject, numbers, timer, never)
    assert outcome.before is None
    assert outcome.numbers["programs"] == 1024


def test_a_launch_that_is_never_right_keeps_its_numbers_in_the_file(tmp_path, monkeypatch):
    subject, numbers, timer = fake(slowness, wrong=lambda n: True)
    outcome = tuner.search(subject, numbers, timer, never)
    assert (outcome.before, outcome.after, outcome.numbers) == (None, None, numbers)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA Test-1 (x)")
    wrong = tuner.Outcome("update", {"columns": 1, "elements": 1, "warps": 1}, None, None, [])
    path = tuner.write([wrong], torch.device("cpu"), tmp_path)
    assert tuning.read(path, tuning.default())["update"] == tuning.default()["update"]


def test_the_search_ends_when_time_is_up():
    calls = []
    subject, numbers, _ = fake(slowness)
    outcome = tuner.search(subject, numbers, lambda call: calls.append(1) or 1.0, lambda: len(calls) >= 6)
    assert len(calls) == 6
    assert outcome.after is not None
    assert tuner.tune([subject], torch.device("cpu"), lambda call: 1.0, -1.0, print) == []


def test_real_kernels_are_right_under_their_numbers_and_a_file_of_them_can_be_read(tmp_path, monkeypatch):
    here = torch.device(os.environ["KERNELS_ON"])
    listed = [*layers.layer_subjects(here, 1)[:1], *subjects.subjects({"tiny": [3, 1]}, here)]
    monkeypatch.setattr(tuner, "VALUES", {"programs": (1,), "warps": (1,), "columns": (64,), "atoms": (1, 4)})

    def timer(call):
        numbers = tuning.launches(here)["update"]
        return 1.0 if numbers["columns"] == 128 else 0.5

    before = json.dumps(tuning.launches(here))
    kept = []
    outcomes = tuner.tune(listed, here, timer, 1e9, pytest.fail, lambda so_far: kept.append(list(so_far)))
    assert kept == [outcomes[: k + 1] for k in range(len(outcomes))]
    assert json.dumps(tuning.launches(here)) == before
    assert len(outcomes) == len(listed)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA Test-1 (x)")
    path = tuner.write(outcomes, here, tmp_path / "new")
    monkeypatch.setenv(tuning.VARIABLE, str(path.parent))
    assert path.name == "nvidia-test-1-x.json"
    assert tuning.named("NVIDIA Test-1 (x)") == tuning.default() | {"update": ANY | {"columns": 64}}
    text = tuner.table(outcomes)
    assert "update" in text
    assert "500000.0" in text


def test_the_reference_on_one_device_sees_what_a_kernel_does_wrong(monkeypatch):
    here = torch.device(os.environ["KERNELS_ON"])
    listed = {s.name: s for s in subjects.subjects({"tiny": [2]}, here)}
    assert tuner.complaint(listed["message_fwd"]) is None
    monkeypatch.setattr(subjects.message, "message_fwd", lambda x, v, *_: (1.01 * x[:, :128], v))
    assert "result 0 of tiny is off by" in tuner.complaint(listed["message_fwd"])


@pytest.mark.parametrize("processors", [1, 108, 132, 304])
def test_numbers_of_layers_are_measured_where_they_count(processors):
    listed = layers.sizes(processors)
    assert list(listed) == [name for name in tuning.default() if name.startswith("layer")]
    for name, atoms in listed.items():
        assert len(atoms) >= 2
        assert {numbers_of(each, processors) for each in atoms} == {name}


def test_the_reference_of_a_layer_sees_what_a_kernel_does_wrong(monkeypatch):
    here = torch.device(os.environ["KERNELS_ON"])
    backward = layers.layer_bwd

    def half(gs, *given, **more):
        backward(0.5 * gs, *given, **more)

    monkeypatch.setattr(layers, "layer_bwd", half)
    (first, *_) = layers.layer_subjects(here, 1)
    assert "result 3 of 1 atoms is off by" in tuner.complaint(first)


def test_without_a_gpu_the_command_says_so():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "painn_fast.kernels.tools.tuning", "--out", str(Path("nowhere"))]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert "torch finds no CUDA device" in run.stderr
    assert not Path("nowhere").exists()
