"""The script that tries published networks, on a network of its own and without their packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.coverage import __main__ as command, attempts, families, report, trial
from bench.coverage.families import Family, Subject, Unavailable, smaller_side
from bench.coverage.weights import images, make_plausible, settle_norms
from bench.results import load
from kernelprune.errors import Error


class Block(nn.Module):
    """A branch that does nothing in a fresh network: its last scale is zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.convolution(x)))


def small(*extra: nn.Module) -> nn.Module:
    """Two residual blocks behind a first layer whose results nearly vanish."""
    first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    nn.init.normal_(first.weight, std=1e-5)
    layers = [first, Block(8), *extra, Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 4))


class Odd(nn.Module):
    """An operator that no engine has, called twice, and another one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(torch.special.bessel_j0(x)) + torch.special.zeta(x, x)


def built(name: str) -> Subject:
    if name == "nothing":
        raise Unavailable("no such encoder")
    if name == "bug":
        raise ValueError("a bug of the package")
    return Subject.square(small(*([Odd()] if name == "odd" else [])), 64, smaller_side(64))


@pytest.fixture
def own_family(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("good", "odd", "nothing", "bug")
    own = {"own": Family("own", "networks of our own", lambda: names, built)}
    for module in (command, trial):
        monkeypatch.setattr(module, "families", lambda: own)


# --- weights -------------------------------------------------------------------------------------


def test_every_branch_counts() -> None:
    """If this fails, a mistake in a branch whose scale starts at zero changes no output, and a
    network that is captured wrongly passes for right."""
    model = small()
    make_plausible(model, (3, 32, 32))
    x = images(2, (3, 32, 32), seed=5)
    with torch.no_grad():
        before = model(x)
        model[1].convolution.weight.mul_(-1.0)
        after = model(x)
    assert float((before - after).norm() / before.norm()) > 0.05
    spread = float(model[0](x).detach().std())
    assert 0.3 < spread < 3.0
    assert not any(module.training for module in model.modules())


def test_norms_know_the_pruned_network() -> None:
    """If this fails, pruned networks run on statistics of the dense one, where all channels can be
    dead: their outputs then agree whatever is computed."""
    model = small()
    make_plausible(model, (3, 32, 32))
    old = model[1].norm.running_var.clone()
    with torch.no_grad():
        model[1].convolution.weight.mul_(0.1)
    settle_norms(model, (3, 32, 32))
    assert torch.allclose(model[1].norm.running_var, old * 0.01, rtol=0.05)


def test_images_differ() -> None:
    """If this fails, all images give nearly the same output, and errors are lost beside it."""
    means = images(8, (3, 64, 64), seed=0).mean(dim=(2, 3))
    assert float(means.std(dim=0).min()) > 0.2


# --- one trial -----------------------------------------------------------------------------------


def test_a_network_is_tried(own_family: None) -> None:
    """If this fails, the table is empty, or says that a network runs when it does not."""
    row = trial.trial("own", "good", timed=True, pruned=True)
    assert row["status"] == "captured", row
    found = [(tuple(result["shape"]), result["batch"]) for result in row["results"]]
    assert found == [((3, side, side), batch) for side in (64, 32) for batch in (1, 3)]
    for result in row["results"]:
        assert 0 < result["error"] < 1e-5 and 0 < result["torch_error"] < 1e-5
        assert result["contrast"] > 0.01
    assert row["time"]["ratio"] > 0 and row["macs"] > 0
    assert row["pruned"]["status"] == "captured", row["pruned"]
    assert row["pruned"]["density"] < 0.5


def test_rounding_is_kept_small(own_family: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a network that enlarges rounding with one set of weights is never compared."""
    gains = []

    def tried(subject, folder, **options):
        gains.append(float(subject.module[1].norm.weight.mean()))
        return {"status": "unstable" if len(gains) < 3 else "captured"}

    monkeypatch.setattr(trial, "_tried", tried)
    assert trial.trial("own", "good", timed=False, pruned=False)["norm_gain"] == 0.1
    assert gains == [pytest.approx(gain * gains[0]) for gain in (1.0, 0.3, 0.1)]


def test_wrong_results_are_seen(own_family: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a network that the engine computes wrongly counts as captured."""
    genuine = trial.run
    monkeypatch.setattr(trial, "run", lambda engine, x: [1.001 * y for y in genuine(engine, x)])
    row = trial.trial("own", "good", timed=False, pruned=False)
    assert row["status"] == "wrong"
    assert all(result["fast_error"] > 1e-4 for result in row["results"])


def test_refusals_are_counted(own_family: None) -> None:
    """If this fails, the table does not say which operators a network still needs."""
    row = trial.trial("own", "odd", timed=True, pruned=True)
    assert row["status"] == "refused"
    assert [(found["operator"], found["calls"]) for found in row["reasons"]] == [
        ("aten::special_bessel_j0", 2),
        ("aten::special_zeta", 1),
    ]
    assert "time" not in row and "pruned" not in row


def test_errors_of_packages_are_rows(own_family: None) -> None:
    """If this fails, one package's mistake ends the whole run, or counts against the engine."""
    assert trial.trial("own", "nothing", timed=False, pruned=False)["status"] == "unavailable"
    bug = trial.trial("own", "bug", timed=False, pruned=False)
    assert bug == {"status": "failed", "detail": "ValueError: a bug of the package"}


def test_distance_sees_what_is_missing() -> None:
    """If this fails, a missing output, another size or a NaN passes for agreement."""
    one = np.ones((2, 3))
    assert trial.distance([one], [one]) == 0.0
    assert trial.distance([one], [one, one]) == float("inf")
    assert trial.distance([one[:, :2]], [one]) == float("inf")
    assert trial.distance([one * np.nan], [one]) == float("inf")
    assert trial.distance([one, 2 * one], [one, one]) == pytest.approx(1.0)


# --- processes -----------------------------------------------------------------------------------

_WRITE = "open(target, 'w').write('{\"status\": \"captured\"}')"
_ENDLESS = "import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 2))\nwhile True: pass"


def _execute(words: Sequence[str]) -> None:
    """A trial that does what its first word says."""
    text, target = words
    exec(text, {"target": target})


@pytest.mark.parametrize(
    ("error", "torch_error", "status"),
    [
        (1e-5, 1e-6, "captured"),
        (3e-4, 5e-5, "captured"),
        (3e-4, 1e-6, "wrong"),
        (5e-2, 5e-3, "wrong"),
        (2e-2, 4e-2, "unstable"),
    ],
)
def test_status(error: float, torch_error: float, status: str) -> None:
    """If this fails, a mistake is excused as rounding, or rounding is taken for a mistake."""
    assert trial._status([{"error": error, "torch_error": torch_error}]) == status


def test_attempts() -> None:
    """If this fails, one network that hangs or crashes ends the run or is taken for another."""
    programs = {
        "good": _WRITE,
        "crash": "import os; print('why', flush=True); os.abort()",
        "endless": _ENDLESS,
    }
    found: dict[str, attempts.Row] = {}
    trials = [(key, [text]) for key, text in programs.items()]
    attempts.attempt_all(_execute, trials, 2, 60.0, lambda key, row: found.update({key: row}))
    assert {key: row["status"] for key, row in found.items()} == {
        "good": "captured",
        "crash": "crash",
        "endless": "time",
    }
    assert found["crash"]["detail"] == "signal SIGABRT: why"


def test_a_waiting_trial_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a trial that waits for something never ends."""
    monkeypatch.setattr(attempts, "_PATIENCE", 1.0)
    program = ["import time; time.sleep(600)"]
    assert attempts.attempt(_execute, program, 0.2)["status"] == "time"


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def run(own_family: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Calls the command; trials answer from ``answers``, and it returns the names tried."""
    answers = {"good": "captured", "odd": "refused", "nothing": "unavailable", "bug": "failed"}

    def attempt_all(program, trials, jobs, seconds, done) -> None:
        assert program is trial.main
        for key, words in reversed(list(trials)):
            assert words[:2] == list(key)
            tried.append(key[1])
            done(key, {"status": answers[key[1]], "detail": "why", "seconds": 1.0})

    tried: list[str] = []
    monkeypatch.setattr(command, "attempt_all", attempt_all)

    def call(*arguments: str) -> list[str]:
        tried.clear()
        command.main(["--family", "own", "--file", str(tmp_path / "coverage.json"), *arguments])
        return list(tried)

    return call


def test_it_goes_on(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, an interrupted run of hours starts over, or never tries a network again."""
    assert run("--only", "^g") == ["good"]
    assert run() == ["bug", "nothing", "odd"]
    assert run() == []
    assert run("--again", "refused", "failed") == ["bug", "odd"]
    assert run("--again") == ["bug", "nothing", "odd", "good"]
    assert run("--pruned") == ["good"]
    rows = load(tmp_path / "coverage.json")["rows"]
    assert [row["name"] for row in rows] == ["bug", "good", "nothing", "odd"]
    assert "[1/1] own" in capsys.readouterr().out
    with pytest.raises(Error, match="not a regular expression"):
        run("--only", "(")


def test_list(run, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, nobody sees what a pattern will try."""
    run("--list", "--only", "o.d")
    assert capsys.readouterr().out.split() == ["own", "good", "own", "odd"]


def test_families_are_there_without_their_packages() -> None:
    """If this fails, the table can be written only where all the packages are installed."""
    found = families.families()
    assert len(found) == 12
    assert [name for name in found][-1] == "yolo-hybrid"
    assert len(found["timm"].names()) == len(set(found["timm"].names())) > 150


# --- the table -----------------------------------------------------------------------------------


def row(name: str, status: str, **more) -> dict:
    return {"family": "own", "name": name, "status": status, "commit": "abc", **more}


def measured(error: float, **more) -> dict:
    return {
        "results": [
            {"shape": [3, 8, 8], "batch": 1, "error": error, "torch_error": 1e-7, "contrast": 0.5}
        ],
        **more,
    }


def reasons(*names: str) -> list[dict]:
    return [{"operator": f"aten::{name}", "reason": "is odd", "calls": 2} for name in names]


def test_document() -> None:
    """If this fails, the published table counts wrongly, or does not fit a terminal."""
    rows = [
        row("a", "captured", **measured(2e-7, time={"ratio": 2.0})),
        row("b", "captured", **measured(5e-7, time={"ratio": 4.0})),
        row("c", "refused", reasons=reasons("x", "y"), detail="z " * 200),
        row("d", "refused", reasons=reasons("x")),
        row("e", "wrong", **measured(0.5)),
        row("f", "unavailable", detail="no"),
        row("g", "time", detail="not done in 180 s"),
        row("h", "unstable", **measured(0.5)),
    ]
    rows[0]["pruned"] = {"status": "captured", "parameters_left": 0.25, **measured(3e-6)}
    rows[1]["norm_gain"] = 0.3
    rows[1]["pruned"] = {"status": "failed", "detail": "word " * 60}
    result = {"rows": rows, "machine": {"processor": "P"}, "versions": {"torch": "2"}}
    result["listed"] = {"own": 10, "none": 2}
    text = report.document(result, {"own": "networks of our own", "none": "nothing"})
    assert "| networks of our own | 2 / 6 | 5.0e-07 | 1.0e-07 | 3.00 |" in text
    assert "| networks of our own | 1 / 2 | 3.0e-06 | 25 % |" in text
    assert "2 of 6 networks are captured" in text
    assert "- `aten::x` is odd (2): c, d" in text
    assert "- c: `aten::x`, `aten::y`" in text
    assert "- e: error 5.0e-01 (torch 1.0e-07)" in text
    assert "- g: out of time: not done in 180 s" in text
    words = " ".join(text.split())
    assert "refuses them: f." in words and "with these random weights: h." in words
    assert "more than 1e-2 from float64: b (0.3)." in words
    assert "**Not tried yet**, of 12: networks of our own 2, nothing 2." in words
    assert max(map(len, text.splitlines())) <= 80
