"""The comparison on an accelerator: shapes in turns, float32 as the judge, files as it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest

from tests.tools import test_compare_peers
from tools.compare_peers.gpu import __main__ as command
from tools.compare_peers.gpu.measure import Listener, Row, Shape, measure, rms_difference
from tools.compare_peers.gpu.peers import EXTRA, PEERS, choose
from tools.compare_peers.gpu.prepare import prepare_all
from tools.compare_peers.gpu.report import Reporter, rivals, to_markdown
from tools.compare_peers.gpu.settings import REFERENCE, Settings
from tools.compare_peers.gpu.timing import turn
from tools.compare_peers.gpu.workers import LimitedWorker, device_variables
from tools.compare_peers.job import Job
from tools.compare_peers.peers import Peer
from tools.compare_peers.workers import PeerError

ABOUT: dict[str, Any] = {
    "packages": {"numpy": "2"},
    "cores": 1,
    "processor": "a processor",
    "repeats": 2,
    "date": "today",
    "settings": {"encoder": {"least": 5}},
}


class Fake(test_compare_peers.Fake):
    """The same on a card."""

    message = "no | such file"

    def device(self) -> str:
        return "a card"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    for name, value in (("log", []), ("outputs", {}), ("seconds", {})):
        monkeypatch.setattr(Fake, name, value)
    return Fake


def shape(folder: Path, *names: str, reference: bool = True) -> Shape:
    if reference:
        np.save(folder / REFERENCE, np.array([1.0, -2.0]))
    rows = [Row(Peer(name, f"the {name}", "nowhere:Nothing", (), "bfloat16")) for name in names]
    return Shape(Job("encoder", "nano", 32), folder, rows)


def test_peers_take_turns_and_failures_are_rows(
    fake: type[Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.seconds = {"a": 2.0, "b": 1.0, "ours": 0.5, "late": 0}
    fake.outputs = {"wrong": [1.0, 0.0], "away": "cannot load", "shape": [1.0], "nan": [1, np.nan]}
    table = shape(tmp_path, "a", "b", "ours", "late", "wrong", "away", "shape", "nan")
    measure([table], 2, 3, Fake, Reporter([table], ABOUT, tmp_path / "out"))
    turns = [name for name in fake.log if "closed" not in name]
    assert turns == ["a", "b", "ours", "late"] + ["a", "b", "ours"] * 2
    assert {f"{name} closed" for name in ("a", "b", "ours", "late", "wrong")} < set(fake.log)
    reasons = {row.peer.name: row.reason for row in table.rows}
    assert [reasons[name] for name in ("a", "b", "ours")] == [None] * 3
    assert reasons["late"] == "failed: out of memory"
    assert reasons["wrong"] == "wrong: differs by 1, the limit is 0.25"
    assert reasons["away"] == "failed: no | such file"
    assert "shape (1,)" in str(reasons["shape"]) and "differs by nan" in str(reasons["nan"])
    assert table.rows[0].seconds == {"forward": [2.0, 2.0]} and table.rows[0].device == "a card"
    printed = capsys.readouterr().out
    assert "nano, 32 px, batch 1: late: failed: out of memory" in printed
    assert "| the ours (`ours`) | 0.0e+00 | 0.0e+00 | 500.00 | 500.00 | 0.25 | 0.50 |" in printed
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    plain = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert plain["shapes"][0]["peers"][1]["median"] == {"forward": 1.0}
    assert "limit 0.25" in (tmp_path / "out" / "gpu.md").read_text()


def test_every_round_is_kept(fake: type[Fake], tmp_path: Path) -> None:
    table, out = shape(tmp_path, "a"), tmp_path / "out"

    class Stopped(Reporter):
        def rounded(self, shape: Shape) -> None:
            super().rounded(shape)
            if len(shape.rows[0].seconds.get("forward", ())) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([table], 9, 1, Fake, Stopped([table], ABOUT, out))
    peers = json.loads((out / "gpu.json").read_text())["shapes"][0]["peers"]
    assert peers[0]["seconds"] == {"forward": [1.0]} and fake.log[-1] == "a closed"


def test_without_a_reference_nothing_is_timed(fake: type[Fake], tmp_path: Path) -> None:
    table = shape(tmp_path, "a", "b", reference=False)
    measure([table], 1, 1, Fake, Listener())
    assert {row.reason for row in table.rows} == {"not checked: a left no reference"}
    assert "-" in to_markdown(table) and not rivals(table, "forward")


def test_turns() -> None:
    values = iter([9.0, 9.0, 3.0, 1.0, 2.0])
    settings = Settings(turn_seconds=0.0, least=3, uncounted=2)
    assert turn(lambda: {"forward": next(values)}, settings) == {"forward": 2.0}
    assert rms_difference(np.array([3.0, 4.0]), np.array([3.0, 3.0])) == pytest.approx(0.2)


def test_choice() -> None:
    assert [p.name for p in choose("vlm", ["ours_jax"])] == ["transformers", "ours_jax"]
    assert not {p.name for p in choose("encoder", None)} & set(EXTRA)
    assert choose("encoder", ["torch_compile"])[0].name == "torch_eager"
    with pytest.raises(ValueError, match="unknown peers"):
        choose("encoder", ["ours_jaxx"])
    assert all(peer.backend in ("jax", "torch") for t in PEERS.values() for peer in t.values())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = command.parser().parse_args(["--cells", "64x2,32x1", "--device", "cpu"])
    (tmp_path / "weights" / "vlm" / "model").mkdir(parents=True)
    shapes = command.shapes_of(options, tmp_path, tmp_path / "weights")
    assert [s.title for s in shapes] == [
        "fastvithd, 64 px, batch 2",
        "fastvithd, 32 px, batch 1",
        "fastvlm_0.5b, 1024 px, 24 tokens",
    ]
    assert (shapes[2].folder / "model").is_dir() and Job.read(shapes[0].folder) == shapes[0].job
    assert Settings.read(shapes[2].folder).least < Settings.read(shapes[0].folder).least
    assert set(command.about_run(options)["settings"]) == {"encoder", "vlm"}
    with pytest.raises(SystemExit, match="unknown work"):
        command.weight_jobs(command.parser().parse_args(["--work", "sleep"]))
    assert command.main(["--list"]) == 0
    assert "encoder: torch_compile: " in capsys.readouterr().out


def test_weights_of_another_job_are_refused(tmp_path: Path) -> None:
    job = Job("encoder", "nano", 0)
    job.write(tmp_path)
    (tmp_path / "prepared").touch()
    prepare_all([(tmp_path, job)])
    with pytest.raises(SystemExit, match="was prepared for"):
        prepare_all([(tmp_path, Job("encoder", "tiny", 0))])


def test_many_processes_on_one_card() -> None:
    values = device_variables("cuda")
    assert values["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" and "JAX_PLATFORMS" not in values
    assert device_variables("cpu")["JAX_PLATFORMS"] == "cpu"


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    Job("encoder", "nano", 32).write(tmp_path)
    Settings("cpu").write(tmp_path)
    with pytest.raises(PeerError, match="no answer within 0 s"):
        LimitedWorker(PEERS["encoder"]["torch_eager"], tmp_path, 0.01)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="both peers in one process: PyTorch")
def test_the_same_network_on_both_sides(tmp_path: Path) -> None:
    names = ["torch_eager_nchw", "ours_torch"]
    if missing := PEERS["encoder"]["torch_eager"].missing():
        pytest.skip(f"not installed: {missing}")
    from tools.compare_peers.gpu.prepare import write_weights

    Job("encoder", "nano", 32).write(tmp_path)
    Settings("cpu", turn_seconds=0.0, least=1).write(tmp_path)
    write_weights(tmp_path)
    table = Shape(Job.read(tmp_path), tmp_path, [Row(p) for p in choose("encoder", names)])
    measure([table], 1, 1, InProcess, Listener())
    assert [row.reason for row in table.rows] == [None] * 3
    assert all(row.difference is not None and 0 < row.difference < 0.1 for row in table.rows)
    assert all(row.device == "cpu" and row.seconds["forward"] for row in table.rows)


class InProcess:
    """A peer in this process: what a worker does, without the start of one."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        runner = cast(Any, peer.load(folder))
        self.output, self.times, self.device = runner.output, runner.times, runner.device

    def close(self) -> None:
        """Nothing to end."""


@pytest.mark.full
def test_both_works_in_processes(tmp_path: Path) -> None:
    numbers = {
        "num_layers": 2, "hidden_dim": 64, "intermediate_dim": 96, "vocabulary_size": 120,
        "num_query_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    arguments = ["--device", "cpu", "--network", "nano", "--cells", "32x1", "--image-size", "64"]
    arguments += ["--numbers", json.dumps(numbers), "--new-tokens", "3", "--rounds", "1"]
    arguments += ["--turn-seconds", "0", "--least", "1", "--answers", "1", "--at-once", "2"]
    arguments += ["--limit", "600", "--peers", "ours_jax", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    shapes = json.loads((tmp_path / "gpu.json").read_text())["shapes"]
    peers = [peer for shape in shapes for peer in shape["peers"]]
    assert [peer["reason"] for peer in peers] == [None] * 4
    assert set(peers[3]["median"]) == {"first_token", "token", "second_question"}
