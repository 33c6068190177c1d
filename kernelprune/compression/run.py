"""One run of ``kernelprune.compress``, step by step; each is kept in the work folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kernelprune.benchmarking.machine import describe_machine
from kernelprune.compression.images import Images
from kernelprune.compression.judge import Judge, Scores
from kernelprune.compression.making import Made, Maker
from kernelprune.compression.options import CompressOptions
from kernelprune.compression.points import LayerShare, Point
from kernelprune.compression.result import Compressed
from kernelprune.compression.scoring import Evaluate, OutputForm
from kernelprune.compression.search import search
from kernelprune.compression.timing import Timer
from kernelprune.compression.work import WorkFolder, digest_of
from kernelprune.errors import Error
from kernelprune.files import read_bytes, write_bytes
from kernelprune.prune.progress import Progress

DENSE, DENSE_INT8 = "dense float32", "dense int8"
_SLACK = 1.02  # of a time that was asked for; measuring has noise


@dataclass(frozen=True)
class Asked:
    """``kind``: "speed_up", "latency_ms" or "density", with its ``value``; None: the fastest
    network within ``max_drop``. ``curve``: more factors."""

    kind: str
    value: float | None
    max_drop: float | None
    curve: tuple[float, ...]

    def settings(self) -> dict[str, Any]:
        return {self.kind: self.value, "max_drop": self.max_drop, "curve": list(self.curve)}

    def __str__(self) -> str:
        limit = "" if self.max_drop is None else f"max_drop={self.max_drop:g}"
        wanted = "the fastest network" if self.value is None else f"{self.kind}={self.value:g}"
        return ", ".join(word for word in (wanted, limit) if word)


class Run:
    def __init__(
        self,
        model: nn.Module,
        images: Images,
        options: CompressOptions,
        asked: Asked,
        timer: Timer,
        dense: Path,
        source: str,
        folder: WorkFolder,
        form: OutputForm,
        tell: Progress,
        *,
        evaluate: Evaluate | None,
        confirm: Evaluate | None,
        loader: Iterable[Any] | None,
        on_step: Callable[[Point], None] | None,
        ignore: Any,
        include: Any,
    ):
        self.images, self.options, self.asked = images, options, asked
        self.folder, self._tell, self._loader = folder, tell, loader
        self._doing = ""
        self._dense, self._source = dense, source
        self._confirm, self._on_step = confirm, on_step or (lambda point: None)
        self.judge = Judge(
            dense, images, form, by=options.judge, evaluate=evaluate, threads=options.threads
        )
        self._new_maker: Callable[[CompressOptions], Maker] = lambda own: Maker(
            model, images, own, timer, dense, source, self._told, ignore=ignore, include=include
        )
        self.maker = self._new_maker(options)
        self.points: list[Point] = []
        self.made: dict[float, Point | None] = {}
        self.notes: list[str] = []

    def _told(self, doing: str, share: float) -> None:
        self._tell(f"{self._doing}: {doing}" if self._doing else doing, share)

    # ------------------------------------------------------------ the whole

    def result(self) -> Compressed:
        """Makes the networks and chooses one."""
        self._check_metric()
        self.maker.reference = self.folder.part("reference", self.maker.reference_time)["dense"]
        self._add(self._dense_point())
        quantised = self._dense_int8()
        if quantised is not None and self.options.precision == "int8" and not quantised.holds:
            self._leave_int8(quantised)
        self._doing = "measuring"
        self.maker.begin(self.folder.part("measured", self.maker.measured))
        for factor in self.asked.curve:
            self._attempt(factor)
        if quantised is None or not self._is_enough(quantised):
            self._search(quantised)
        chosen = self._chosen(quantised)
        self._note(chosen)
        return Compressed(
            content=read_bytes(self._path(chosen)),
            chosen=chosen,
            points=tuple(self.points),
            source=self._source,
            asked=str(self.asked),
            judged_by=self.judge.words,
            max_drop=self.asked.max_drop,
            confirmed=self._confirmed(chosen),
            images=self.images.counts,
            batch=self.options.batch,
            threads=self.options.threads,
            machine=describe_machine(),
            notes=tuple(self.notes),
        )

    def _check_metric(self) -> None:
        """Raises Error where ``evaluate`` gives something else for the dense network than when the
        run began: its data have changed."""
        now = self.judge.metric
        found = self.folder.part("metric", lambda: {"dense": now})["dense"]
        if now is not None and (found is None or abs(found - now) > 1e-6 * max(abs(now), 1.0)):
            raise Error(
                f"{self.folder.folder}: was begun when evaluate gave {found} for the dense "
                f"network, now it gives {now:g}; give another folder"
            )

    def _leave_int8(self, quantised: Point) -> None:
        """Int8 alone costs more than it may."""
        self.notes.append(
            f"int8 alone has a drop of {quantised.drop:.4f}, more than max_drop: networks are made "
            "in float32"
        )
        reference = self.maker.reference
        self.options = replace(self.options, precision="float32")
        self.maker = self._new_maker(self.options)
        self.maker.reference = reference

    def _dense_point(self) -> Point:
        found = self.judge.scores(self._dense)
        return Point(
            name=DENSE, precision="float32", asked=None, milliseconds=self.maker.reference,
            speed_up=1.0, density=1.0, likeness=found.likeness, held_out=found.held_out,
            metric=self.judge.metric, drop=0.0, held_out_drop=0.0, holds=True,
        )  # fmt: skip

    def _dense_int8(self) -> Point | None:
        """None, with a note, for a network no layer of which can be bytes."""
        path = self.folder.path("dense-int8.safetensors")
        self._doing = DENSE_INT8

        def make() -> dict[str, Any]:
            started = time.perf_counter()
            try:
                self.maker.dense_int8(path)
            except Error as error:
                if self.options.precision == "int8":
                    raise
                return {"reason": str(error)}
            timed, speed_up = self.maker.beside_dense(path)
            point = self._point(
                DENSE_INT8, "int8", None, timed.milliseconds, speed_up, self.judge.scores(path)
            )
            point = replace(point, seconds=time.perf_counter() - started)
            return {"point": point.to_dict(), "files": {path.name: digest_of(path)}}

        found = self.folder.part("dense-int8", make)
        if "reason" in found:
            self.notes.append(f"no dense int8 network: {found['reason']}")
            return None
        point = Point.from_dict(found["point"])
        self._add(point)
        return point

    def _is_enough(self, quantised: Point) -> bool:
        """Does the dense network in int8 reach what was asked for?"""
        factor = self._target()
        enough = (
            self.options.precision == "int8" and self.asked.kind != "density"
            and factor is not None and quantised.holds and quantised.speed_up >= factor
        )  # fmt: skip
        if enough:
            self.notes.append("int8 alone is as fast as was asked for: nothing is pruned")
        return enough

    def _target(self) -> float | None:
        value = self.asked.value
        if value is None or self.asked.kind == "speed_up":
            return value
        if self.asked.kind == "density":
            return 1.0 / value
        return self.maker.reference / value

    def _search(self, quantised: Point | None) -> None:
        target = self._target()
        if target is not None and target <= 1.0 and self.asked.kind == "latency_ms":
            self.notes.append("the dense network is as fast as was asked for: nothing is pruned")
            return
        low = 1.0
        by_time = self.asked.kind != "density"
        if self.options.precision == "int8" and by_time and quantised and quantised.holds:
            low = max(quantised.speed_up, 1.0)
        search(
            self._attempt, target=target, limited=self.asked.max_drop is not None, low=low,
            steps=self.options.steps, close=self.options.close,
        )  # fmt: skip

    # ------------------------------------------------------------ a step

    def _attempt(self, factor: float) -> Point | None:
        if factor in self.made:
            return self.made[factor]
        name = f"step {len(self.made) + 1}"
        key = name.replace(" ", "-")
        path = self.folder.path(f"{key}.safetensors")
        self._doing = f"{name}, {self._wanted(factor)}"

        def make() -> dict[str, Any]:
            started = time.perf_counter()
            point = self._make(name, factor, path)
            if point is None:
                return {"asked": factor, "reached": False}
            point = replace(point, seconds=time.perf_counter() - started)
            return {
                "asked": factor,
                "reached": True,
                "point": point.to_dict(),
                "files": {path.name: digest_of(path)},
            }

        found = self.folder.part(key, make)
        if not found["reached"]:
            self.made[factor] = None
            self.notes.append(f"no network is {self._wanted(factor)}")
            return None
        point = Point.from_dict(found["point"])
        self.made[factor] = point
        self._add(point)
        return point

    def _wanted(self, factor: float) -> str:
        if self.asked.kind == "density":
            return f"of density {1 / factor:.3g}"
        return f"{factor:.3g} times as fast"

    def _make(self, name: str, factor: float, path: Path) -> Point | None:
        if self.asked.kind == "density":
            densities = {layer: 1.0 / factor for layer in self.maker.trials.blocks}
            made = self.maker.with_densities(densities, path, "uniform")
        else:
            within = self.maker.within_time(self.maker.reference / factor, path)
            if within is None:
                return None
            made = within
        scores = self.judge.scores(path)
        tuned = self._loader is not None and self._is_better_tuned(made, scores, path)
        if tuned:
            scores = self.judge.scores(path)
        point = self._point(
            name, self.options.precision, factor, made.timed.milliseconds, made.speed_up, scores
        )
        return replace(
            point, density=made.plan.prunable_density, fine_tuned=tuned,
            layers=self._layers(made), notes=tuple(made.plan.warnings),
        )  # fmt: skip

    def _is_better_tuned(self, made: Made, before: Scores, path: Path) -> bool:
        """Fine-tunes; puts the network in the place of the other where it is better."""
        assert self._loader is not None
        place = path.with_name(f"{path.stem}-tuned.safetensors")
        self.maker.fine_tuned(made, self._loader, place)
        after = self.judge.scores(place)
        better = (after.drop, -after.likeness.cosine) < (before.drop, -before.likeness.cosine)
        if better:
            write_bytes(path, read_bytes(place))
            made.timed, made.speed_up = self.maker.beside_dense(path)
        place.unlink()
        return better

    def _layers(self, made: Made) -> tuple[LayerShare, ...]:
        times = self.maker.by_layer(made.graph, made.timed)
        return tuple(
            LayerShare(row.name, row.density, times.get(row.name)) for row in made.plan.rows
        )

    def _point(
        self, name: str, precision: str, asked: float | None, milliseconds: float,
        speed_up: float, scores: Scores,
    ) -> Point:  # fmt: skip
        limit = self.asked.max_drop
        return Point(
            name=name, precision=precision, asked=asked, milliseconds=milliseconds,
            speed_up=speed_up, density=1.0, likeness=scores.likeness, held_out=scores.held_out,
            metric=scores.metric, drop=scores.drop, held_out_drop=scores.held_out_drop,
            holds=limit is None or scores.drop <= limit,
        )  # fmt: skip

    def _add(self, point: Point) -> None:
        self.points.append(point)
        self._on_step(point)

    # ------------------------------------------------------------ the choice

    def _chosen(self, quantised: Point | None) -> Point:
        """The network of the target, if it holds; else the fastest that does. Raises Error where a
        target without a largest drop cannot be reached."""
        target = self._target()
        wanted = None if target is None else self.made.get(target)
        if wanted is not None and wanted.holds:
            return wanted
        allowed = [point for point in self.points if point.name != DENSE_INT8]
        if quantised is not None and self.options.precision == "int8":
            allowed.append(quantised)
        if self.asked.max_drop is None and target is not None:
            fast = [point for point in allowed if point.speed_up >= target]
            if not fast:
                best = max(allowed, key=lambda point: point.speed_up)
                raise Error(
                    f"{self.asked}: cannot be reached; with the fewest connections the network is "
                    f"about {self._fastest():.3g} times as fast as the dense one"
                    + ("" if best.asked is None else f" ({best.name} is {best.speed_up:.3g})")
                )
            return min(fast, key=lambda point: point.speed_up)
        return max((p for p in allowed if p.holds), key=lambda point: point.speed_up)

    def _fastest(self) -> float:
        times = self.maker.times
        least = times.rest + sum(row[0] for row in times.milliseconds.values())
        return self.maker.reference / max(least, 1e-9)

    def _note(self, chosen: Point) -> None:
        """What should be known of the choice."""
        target, limit = self._target(), self.asked.max_drop
        by_time = self.asked.kind != "density"
        if target is not None and by_time and chosen.speed_up * _SLACK < target:
            reason = (
                "no faster network that was made keeps within max_drop"
                if limit is not None
                else ("no network that was made is as fast")
            )
            self.notes.append(
                f"{target:.3g} times as fast was asked for, {chosen.speed_up:.3g} was reached: "
                f"{reason}"
            )
        if limit is not None and chosen.asked is None and chosen.name == DENSE:
            self.notes.append("no compressed network keeps within max_drop: this is the dense one")
        judging = self.images.counts[1]
        if limit is not None and self.judge.by == "agreement" and 0 < limit < 1 / judging:
            self.notes.append(
                f"max_drop={limit:g} is less than one of the {judging} images that judge; give "
                "more images"
            )

    def _path(self, point: Point) -> Path:
        if point.name == DENSE:
            return self._dense
        return self.folder.path(f"{point.name.replace(' ', '-')}.safetensors")

    def _confirmed(self, chosen: Point) -> tuple[float, float] | None:
        if self._confirm is None:
            return None
        before = self.judge.of_file(self._confirm, self._dense)
        return before, self.judge.of_file(self._confirm, self._path(chosen))
