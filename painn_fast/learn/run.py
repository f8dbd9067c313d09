"""`painn-fast learn`: from one geometry and a method to a model and its verdict, in stages that survive a kill."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch

from painn_fast.errors import PaiNNFastError
from painn_fast.io import load
from painn_fast.io.minima import keep_minima
from painn_fast.io.model_file import save_model
from painn_fast.io.structures import read_structures, write_extxyz
from painn_fast.label.dask import DaskWorkers
from painn_fast.label.methods import How
from painn_fast.label.run import label_frames
from painn_fast.label.workers import Workers
from painn_fast.learn import training
from painn_fast.learn.errors import held_out
from painn_fast.learn.explore import explore, fresh_beads, next_structures, read_explored
from painn_fast.learn.lines import conformers_of
from painn_fast.learn.picture import draw
from painn_fast.learn.plan import (
    ROUND_SHARE,
    VERDICT_SHARE,
    Counts,
    costs,
    counts,
    polarizability_every,
    seconds_per_step,
)
from painn_fast.learn.report import csv, text
from painn_fast.learn.report import write as write_text
from painn_fast.learn.sample import sampled, structure_of
from painn_fast.learn.settings import LearnSettings, Sampled, SampleSettings
from painn_fast.learn.stages import PLAN, Stages, read_json, write_json
from painn_fast.learn.surface import MethodForces
from painn_fast.learn.verdict import examine
from painn_fast.runtime.progress import StatusLine
from painn_fast.settings import load_settings, write_resolved
from painn_fast.train import TrainSettings

SETTINGS, MODEL, CARD = "settings.toml", "model.safetensors", "model.md"
FEWEST = 200
"""Training steps, however little time there is."""
FREE = {"output", "workers", "dask"}
"""Settings that a resumed run may have otherwise than it began."""


def learn(
    settings: LearnSettings, atoms: ase.Atoms | None = None, *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Learn a molecule: sample, label, train a committee, explore with it, label what it does not know, train on.

    Args:
        settings: what to learn, by which method, with how many labels or in what time.
        atoms: instead of the settings' file.
        resume: go on with the run in the folder; no structure is labelled twice.
        overwrite: replace it.

    Returns:
        The model file, which contains its minima. Beside it report.md, report.png and the tables.

    Raises:
        PaiNNFastError: for settings or a structure that do not fit, a method that fails, or a folder in use.

    Example:
        >>> from ase.build import molecule
        >>> from painn_fast.learn import LearnSettings, learn
        >>> settings = LearnSettings(method="tblite", time="12 min", output="methanol")
        >>> learn(settings, molecule("CH3OH"))  # doctest: +SKIP
        PosixPath('methanol/model.safetensors')
    """
    given = structure_of(settings.structure, atoms)
    folder = Path(settings.output)
    _take_folder(settings, folder, resume=resume, overwrite=overwrite)
    with StatusLine() as status:
        how, surface = methods(settings)
        stages = Stages(folder, status)
        with MethodForces(surface, given, settings.workers) as cheap, _reference(settings, how, cheap) as workers:
            return _Run(settings, given, folder, stages, how, cheap, workers).go()


def methods(settings: LearnSettings) -> tuple[How, How]:
    """The method that labels, and the cheap one.

    Raises:
        PaiNNFastError: if one of them cannot be used.
    """
    how = How(settings.method, settings.level, tuple(sorted(settings.options.items())))
    how.make()
    cheap = How(settings.surface, settings.surface_level)
    if cheap.method == how.method and cheap.level in (None, how.level):
        return how, how
    cheap.make()
    return how, cheap


def _reference(settings: LearnSettings, how: How, cheap: MethodForces) -> Workers:
    """What labels: a cluster, or processes, which are those of the cheap surface if that is the same method."""
    if settings.dask is not None:
        return DaskWorkers(how, settings.dask)
    return cheap.workers if how == cheap.how else Workers(how, cheap.workers.count)


def _take_folder(settings: LearnSettings, folder: Path, *, resume: bool, overwrite: bool) -> None:
    saved = folder / SETTINGS
    if saved.exists() and overwrite:
        shutil.rmtree(folder)
    if saved.exists():
        if not resume:
            raise PaiNNFastError(
                "the output folder holds a run", where=folder,
                fix="go on with --resume, replace it with --overwrite, or choose another output",
            )  # fmt: skip
        before = load_settings(LearnSettings, saved)
        now, then = (one.model_dump(mode="json", exclude=FREE) for one in (settings, before))
        differ = [name for name in now if now[name] != then[name]]
        if differ:
            raise PaiNNFastError(
                "the run in the folder has other settings", where=folder,
                got=", ".join(f"{name} = {now[name]}" for name in differ),
                expected=", ".join(f"{name} = {then[name]}" for name in differ), fix="choose another output",
            )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_resolved(settings, saved)


class _Run:
    """One run in its folder."""

    def __init__(
        self,
        settings: LearnSettings,
        given: ase.Atoms,
        folder: Path,
        stages: Stages,
        how: How,
        cheap: MethodForces,
        workers: Workers,
    ) -> None:
        self.settings, self.given, self.folder, self.stages = settings, how.charged(given), folder, stages
        self.how, self.cheap, self.workers = how, cheap, workers
        self.files: list[Path] = []  # labelled, to train on
        self.tests: list[Path] = []  # labelled beads that are held out
        self.models: list[Path] = []  # the committee
        self._read: dict[Path, list[ase.Atoms]] = {}

    @cached_property
    def counts(self) -> Counts:
        """Of labels, decided when the run begins."""

        def make() -> dict[str, int]:
            if self.settings.time is None:
                return vars(counts(self.settings))
            return vars(counts(self.settings, costs(self.settings, self.how, self.cheap.how, self.given)))

        return Counts(**self.stages.decide("counts", make))

    def go(self) -> Path:
        """All stages that are left."""
        self._sample()
        self._pretrain()
        for k in range(self.settings.rounds):
            self._label(f"round-{k}", f"round {k}")
            if k + 1 == self.settings.rounds or self._round(k):
                break
        self._train("final", self._final_steps)
        self._explore("final")
        self._held_out("final")
        return self._finish()

    def _labelled(self, file: Path) -> list[ase.Atoms]:
        """Structures of a finished file with their labels, read once."""
        if file not in self._read:
            self._read[file] = ase.io.read(file, ":")
        return self._read[file]

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, *name.encode()])

    def _sample(self) -> None:
        """Minima on the cheap surface, and the structures of the first round."""
        chosen = self._sampling(self.counts.first, self.settings.seed)

        def work(path: Path) -> None:
            frames, minima = sampled(chosen, self.given, self.cheap, self.folder / "sampling")
            write_extxyz(self.folder / "minima.xyz", [one.atoms for one in minima])
            write_extxyz(path, frames)

        self.stages.do("sampling", "round-0/structures.xyz", work)
        self.minima = [self._molecule(one) for one in read_structures(self.folder / "minima.xyz")]

    def _molecule(self, one: ase.Atoms) -> ase.Atoms:
        """The molecule at the positions of another structure of it."""
        own = self.given.copy()
        own.positions = one.positions
        return own

    def _sampling(self, count: int, seed: int) -> SampleSettings:
        own = self.settings.model_dump(mode="json", include=set(Sampled.model_fields))
        return SampleSettings.parse({**own, "count": count, "seed": seed})

    def _pretrain(self) -> None:
        """Weights to start from, of cheap labels."""
        if self.settings.cheap_labels is None:
            return
        method, level, count = self.settings.cheap_labels
        how = How(method, level)
        chosen = self._sampling(count, self.settings.seed + 1)

        def work(path: Path) -> None:
            with MethodForces(how, self.given, self.settings.workers) as surface:
                if not (path.parent / "structures.xyz").exists():
                    frames, _ = sampled(chosen, self.given, surface, self.folder / "sampling")
                    write_extxyz(path.parent / "structures.xyz", frames)
                frames = read_structures(path.parent / "structures.xyz")
                label_frames(frames, path, how, polarizability_every=0, workers=surface.workers)

        self.stages.do(f"pretraining: {count} labels of {how.theory}", "pretrain/labelled.xyz", work)
        self.files = [self.folder / "pretrain/labelled.xyz"]
        self._train("pretrain", self._round_steps)
        self.files = []

    def _label(self, name: str, stage: str) -> None:
        every = polarizability_every(self.settings, self.counts.total)

        def work(path: Path) -> None:
            frames = read_structures(path.parent / "structures.xyz")
            label_frames(frames, path, self.how, polarizability_every=every, workers=self.workers)

        self.files.append(self.stages.do(f"{stage}: labels", f"{name}/labelled.xyz", work))

    def _round(self, k: int) -> bool:
        """Train, explore, test, select; whether no further structures are to be labelled."""
        name = f"round-{k}"
        self._train(name, self._round_steps)
        self._explore(name)
        errors = self._held_out(name)
        if self.stages.decide(f"ends after round {k}", lambda: self._ends(errors)):
            return True

        def work(path: Path) -> None:
            known = [one for file in self.files for one in self._labelled(file)]
            explored = read_explored(self.folder / name / "explored.npz", self.given)
            fresh = read_structures(self.folder / name / "fresh.xyz")
            random = self._random(f"next {k}")
            frames = next_structures(explored, self.models, known, fresh, self.counts.later, random)
            write_extxyz(path, frames)

        self.stages.do(f"round {k}: selection", f"round-{k + 1}/structures.xyz", work)
        return False

    def _ends(self, errors: dict[str, Any]) -> str:
        """Why no further structures are labelled; empty if they are."""
        if errors["forces"] <= self.settings.aim and not errors["cold_stopped"]:
            return f"forces on fresh beads are within {self.settings.aim:g} kcal/mol/Å, and no trajectory was stopped"
        limit = self.settings.time
        return "the time for rounds is used up" if limit is not None and self.stages.elapsed > 0.5 * limit else ""

    def _train(self, name: str, steps: Callable[[Callable[[int, Path], TrainSettings]], int]) -> None:
        """Train the committee from its last weights on all labels."""
        start = list(self.models)

        def work(path: Path) -> None:
            labelled = {file: self._labelled(file) for file in self.files}
            data = [
                part
                for file, frames in labelled.items()
                for part in training.split(file, frames, self.folder, f"{file.parent.name}, {frames[0].info['theory']}")
            ]
            if name == "final":
                data += [{"file": file.relative_to(self.folder).as_posix(), "use_as": "test"} for file in self.tests]
            structures = sum(len(training.to_train(frames)) for frames in labelled.values())
            heads = training.heads([one for frames in labelled.values() for one in frames])

            def make(count: int, output: Path) -> TrainSettings:
                return training.settings_of(self.settings, data, heads, structures, count, output)

            count = self.stages.decide(f"steps of {name}", lambda: steps(make))
            models = training.train(make(count, path.parent), self.settings, start)
            write_json(path, {"models": [one.relative_to(self.folder).as_posix() for one in models]})

        done = self.stages.do(f"{name}: training", f"{name}/models.json", work)
        self.models = [self.folder / one for one in read_json(done)["models"]]

    def _round_steps(self, make: Callable[[int, Path], TrainSettings]) -> int:
        limit = self.settings.time
        if limit is None:
            return self.settings.steps
        return max(int(ROUND_SHARE * limit / self._step_time(make)), FEWEST)

    def _final_steps(self, make: Callable[[int, Path], TrainSettings]) -> int:
        limit = self.settings.time
        if limit is None:
            return self.settings.final_steps
        left = (1.0 - VERDICT_SHARE) * limit - self.stages.elapsed
        return max(int(left / self._step_time(make)), FEWEST)

    def _step_time(self, make: Callable[[int, Path], TrainSettings]) -> float:
        """Seconds of a step of all members: as in the last training, or tried out."""
        turns = -(-self.settings.members // min(self.settings.members, torch.get_num_threads()))
        if self.models:
            facts = [read_json(path.parent / "training.json") for path in self.models]
            return turns * max(float(one["seconds"]) / one["steps"] for one in facts)
        return turns * seconds_per_step(make(1, self.folder / "trial"), self.folder)

    def _explore(self, name: str) -> None:
        self.stages.do(
            f"{name}: exploration",
            f"{name}/explored.npz",
            lambda path: explore(self.settings, self.models, self.minima, path, _seed(self._random(f"explore {name}"))),
        )

    def _held_out(self, name: str) -> dict[str, Any]:
        """Label fresh beads, which no training sees, and compare with them."""

        def choose(path: Path) -> None:
            explored = read_explored(self.folder / name / "explored.npz", self.given, self.counts.held_out)
            write_extxyz(path, fresh_beads(explored, self.counts.held_out, self._random(f"fresh {name}")))

        def work(path: Path) -> None:
            frames = read_structures(path.parent / "fresh.xyz")
            every = polarizability_every(self.settings, self.counts.total)
            label_frames(frames, path, self.how, polarizability_every=every, workers=self.workers)

        def compare(path: Path) -> None:
            chosen = training.best(self.models)
            explored = read_explored(self.folder / name / "explored.npz", self.given)
            labels = sum(len(self._labelled(file)) for file in self.files)
            table = held_out(self.models, chosen, [path.parent / "held-out.xyz"]).table
            stopped = {"stopped": list(explored.stopped), "cold_stopped": explored.cold_stopped}
            write_json(path, {"labels": labels, **table, **stopped})

        self.stages.do(f"{name}: fresh beads", f"{name}/fresh.xyz", choose)
        self.tests.append(self.stages.do(f"{name}: held-out labels", f"{name}/held-out.xyz", work))
        table: dict[str, Any] = read_json(self.stages.do(f"{name}: errors", f"{name}/held-out.json", compare))
        self.stages.status.keep(
            f"{name}: {table['labels']} labels, forces on fresh beads {table['forces']:.3f} kcal/mol/Å (aim "
            f"{self.settings.aim:g}), energy {table['energy']:.3f} kcal/mol, {len(table['stopped'])} stopped"
        )
        return table

    def _finish(self) -> Path:
        """The model with its minima, and the verdict on it."""
        chosen = training.best(self.models)

        def write(path: Path) -> None:
            model = load(chosen)
            listed = conformers_of(model, self.minima, self.settings.temperature)
            errors = read_json(self.tests[-1].with_name("held-out.json"))
            trust = (
                f"forces on {self.counts.held_out} fresh beads of its own dynamics off by {errors['forces']:.3f} "
                f"kcal/mol/Å after {errors['labels']} labels; {errors['cold_stopped']} of its trajectories stopped"
            )
            provenance = {**model.config.provenance, "verdict": trust}
            model.config = model.config.model_copy(update={"provenance": provenance})
            keep_minima(model, [one.atoms for one in listed.members])
            save_model(model, path)

        path = self.stages.do("minima of the model", MODEL, write)

        def judge(report: Path) -> None:
            rounds = [file.parent.name for file in self.tests]
            found = examine(
                self.settings, self.folder, self.how, self.minima, self.models, self.workers, self._why(), rounds
            )
            if importlib.util.find_spec("matplotlib"):
                draw(found, self.folder / "report.png")
            write_text(self.folder / "report.csv", csv(found))
            card = (chosen.parent / f"{training.NAME}.md").read_text(encoding="utf-8")
            write_text(self.folder / CARD, f"{card}\n{text(found)}")
            write_text(report, text(found))

        self.stages.do("verdict", "report.md", judge)
        return path

    def _why(self) -> str:
        """Why labelling ended."""
        plan = read_json(self.folder / PLAN)
        reasons = [text for name, text in plan.items() if name.startswith("ends after") and text]
        return reasons[0] if reasons else f"all {self.counts.total} labels are used up"


def _seed(random: np.random.Generator) -> int:
    return int(random.integers(2**31))
