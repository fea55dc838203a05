"""The comparison with peers: turns, correctness before time, and a table that hides nothing."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.evaluation.speed import median
from tools.compare_peers import __main__ as command
from tools.compare_peers import peak, timing, worker
from tools.compare_peers.job import IMAGE_ID, Job
from tools.compare_peers.measure import BaselineError, compare, groups, relative_difference
from tools.compare_peers.peak import measured_peaks
from tools.compare_peers.peers.table import AGAINST, PEERS, Peer, choose
from tools.compare_peers.report import card_name, facts, shares, to_json, to_markdown
from tools.compare_peers.workers import PeerError, Worker, environment

JOB = Job("vision", "nano", 32)
TURN = 0.125


def peer(name: str, precision: str = "float32", module: str = "numpy") -> Peer:
    return Peer(name, f"the {name}", "nowhere:Nothing", (module,), precision)


class Fake:
    """A peer's process whose outputs and times are known."""

    log: list[str] = []
    outputs: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    message = "no such file"

    def __init__(self, peer: Peer, folder: Path) -> None:
        if self.outputs.get(peer.name) == "cannot load":
            raise PeerError(self.message)
        self.name = peer.name

    def output(self) -> np.ndarray:
        return np.asarray(self.outputs.get(self.name, [1.0, -2.0]))

    def times(self, turn_seconds: float = TURN) -> dict[str, float]:
        assert turn_seconds == TURN
        self.log.append(self.name)
        if self.seconds.get(self.name) == 0:
            raise PeerError("out of memory")
        return {"forward": self.seconds.get(self.name, 1.0)}

    def close(self) -> float:
        self.log.append(f"{self.name} closed")
        return 100.0


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    for name, value in (("log", []), ("outputs", {}), ("seconds", {})):
        monkeypatch.setattr(Fake, name, value)
    return Fake


def run(names: list[Peer], **options: Any) -> list[Any]:
    return compare(names, Path("."), 2, pause=0.0, turn_seconds=TURN, start=Fake, **options)


def test_peers_take_turns(fake: type[Fake]) -> None:
    fake.seconds = {"a": 2.0, "b": 1.0, "c": 3.0}
    results = run([peer("a"), peer("b"), peer("c")])
    assert fake.log[:9] == ["a", "b", "c"] * 3
    assert [r.seconds["forward"] for r in results] == [[2.0, 2.0], [1.0, 1.0], [3.0, 3.0]]
    assert [r.ratio["forward"] for r in results] == [1.0, 0.5, 1.5]


def test_the_baseline_is_one_of_every_group(fake: type[Fake]) -> None:
    results = run([peer("a"), peer("b"), peer("c")], at_once=2)
    assert [name for name in fake.log if "closed" not in name] == ["a", "b"] * 3 + ["a", "c"] * 3
    assert len(results[0].seconds["forward"]) == 4 and len(results[1].seconds["forward"]) == 2
    assert [list(g) for g in groups(list("abcde"), 2)] == [["a", "b"], ["c", "d"], ["e"]]
    assert list(groups([], 3)) == [[]]


def test_times_are_divided_by_any_peer(fake: type[Fake]) -> None:
    fake.seconds = {"a": 2.0, "b": 1.0, "c": 3.0}
    fake.outputs = {"b": [1.0, -2.0005]}
    results = run([peer(name) for name in "acb"], at_once=2, loading=3, against="b")
    assert [name for name in fake.log if "closed" not in name] == ["a", "b", "c"] * 3
    assert [r.ratio["forward"] for r in results] == [2.0, 3.0, 1.0]
    assert [r.difference for r in results] == [0.0, 0.0, pytest.approx(0.00025)]
    table = to_markdown(results, {**facts(JOB, 2), "against": "b"})
    assert "| x b |" in table and "x a" not in table


def test_a_peer_whose_times_are_missing_divides_nothing(fake: type[Fake]) -> None:
    fake.seconds = {"b": 0}
    results = run([peer("a"), peer("b"), peer("c")], against="b")
    assert [r.ratio for r in results] == [{}, {}, {}] and results[2].seconds


def test_what_computes_something_else_gets_no_time(fake: type[Fake]) -> None:
    fake.outputs = {
        "wrong": [1.0, -1.9],
        "rough": [1.0, -1.9],
        "nan": [1.0, float("nan")],
        "shape": [1.0],
        "away": "cannot load",
    }
    fake.seconds = {"late": 0}
    results = run(
        [
            peer("a"), peer("wrong"), peer("rough", "bfloat16"), peer("nan"), peer("shape"),
            peer("away"), peer("late"), peer("absent", module="no_such_module"),
        ],
        at_once=9,
    )  # fmt: skip
    reasons = {r.peer.name: r.reason for r in results}
    assert reasons["a"] is None and reasons["rough"] is None
    assert reasons["wrong"] == "wrong: differs by 0.05, the limit is 0.001"
    assert "differs by nan" in reasons["nan"] and "shape (1,)" in reasons["shape"]
    assert reasons["away"] == "failed: no such file"
    assert reasons["late"] == "failed: out of memory"
    assert reasons["absent"] == "not installed: no_such_module"
    assert [r.peer.name for r in results if r.seconds] == ["a", "rough"]
    table = to_markdown(results, facts(JOB, 2))
    rows = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| the")}
    assert "not installed: no_such_module" in rows["absent"]
    assert len({line.count("|") for line in rows.values()}) == 1
    assert "1.00" in rows["rough"] and "5.0e-02" in rows["rough"]


def test_a_turn_is_the_median_of_what_fits_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.1, 0.2, 0.3, 0.4])  # after the start: before the second run, the third, ..
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    values = iter([9.0, 2.0, 1.0, 3.0])
    times = worker.answer(SimpleNamespace(times=lambda: {"forward": next(values)}), "times 0.35")
    assert times == {"times": {"forward": 2.5}} and next(values, None) is None


def test_report(fake: type[Fake]) -> None:
    fake.seconds = {"a": 0.5, "b": 0.25}
    results, about = run([peer("a"), peer("b")]), facts(JOB, 2)
    plain = json.loads(json.dumps(to_json(results, about)))
    assert plain["baseline"] == "a" and plain["job"]["network"] == "nano" and plain["cores"] >= 1
    assert plain["peers"][1]["median"] == {"forward": 0.25}
    assert plain["peers"][1]["ratio"] == {"forward": 0.5}
    table = to_markdown(results, about)
    assert "| the b (`b`) | float32 | 0.0e+00 | 250.0 | 250.0 | 0.50 | 100 |" in table
    assert about["date"] in table and "nano, 32 px, batch 1" in table


def test_shares_of_the_peak(fake: type[Fake]) -> None:
    fake.seconds = {"a": 0.5, "b": 0.25}
    results = run([peer("a"), peer("b"), peer("absent", module="no_such_module")])
    line = shares(results, operations=10**9, peak=4e9)
    assert line.startswith("1.0 GFLOP") and "4 GFLOP/s" in line
    assert line.endswith("`a` 50 %, `b` 100 %")


def test_peaks_are_measured() -> None:
    peaks = measured_peaks(threads=1, sizes=(128, 256))
    assert set(peaks) == {"float32", "bfloat16", "int8"}
    for found in peaks.values():
        assert 1e8 < found["rate"] < 1e14 and found["way"]


def test_the_peak_is_the_best_of_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    slow = ("float32", "slow", lambda: next(clock))
    monkeypatch.setattr(peak, "products", lambda size: [slow, ("float32", "quick", lambda: None)])
    monkeypatch.setattr(peak.time, "perf_counter", lambda: float(next(clock)))
    found = peak.matrix_peaks(sizes=(10,), repeats=2)["float32"]
    assert found == {"rate": 2000.0, "way": "quick, 10 x 10"}


@pytest.mark.parametrize("how", ["cannot load", "absent", "no number", "fails later"])
def test_without_a_baseline_there_is_no_comparison(fake: type[Fake], how: str) -> None:
    first = peer("a", module="no_such_module" if how == "absent" else "numpy")
    fake.outputs = {"cannot load": {"a": how}, "no number": {"a": [np.nan]}}.get(how, {})
    fake.seconds = {"a": 0} if how == "fails later" else {}
    with pytest.raises(BaselineError, match="the baseline a "):
        run([first, peer("b")])
    assert "b closed" in fake.log  # no process is left


def test_relative_difference() -> None:
    assert relative_difference(np.array([4.0, -8.0]), np.array([4.0, -7.0])) == 0.125
    assert median([1.0, 2.0]) == 1.5


def test_choice() -> None:
    assert [p.name for p in choose("vision", ["ours_jax"])] == ["torch_eager", "ours_jax"]
    on_processors = [name for name, peer in PEERS["vlm"].items() if "cpu" in peer.devices]
    assert [p.name for p in choose("vlm", None)] == on_processors
    assert choose("vision", None)[0].name == "torch_eager"
    with pytest.raises(ValueError, match="did you mean 'openvino'"):
        choose("vision", ["openvion"])


def test_jobs(tmp_path: Path) -> None:
    job = Job("vlm", "fastvlm_0.5b", 32, text_tokens=7, numbers={"num_layers": 1})
    job.write(tmp_path)
    assert Job.read(tmp_path) == job
    assert job.pictures().shape == (1, 32, 32, 3) and job.pictures().dtype == np.float32
    row = job.prompt(4)
    assert row[4:8] == [IMAGE_ID] * 4 and len(row) == 11 and row.count(IMAGE_ID) == 4


def test_threads_and_backend_of_a_process() -> None:
    ours = PEERS["vision"]["ours_jax"]
    values = environment(ours, replace(JOB, threads=3), {"PATH": "x"})
    assert values["KERAS_BACKEND"] == "jax" and values["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in environment(ours, JOB, {})


def test_variables_of_a_device() -> None:
    ours = PEERS["vision"]["ours_jax"]
    on_card = environment(ours, replace(JOB, device="cuda"), {})
    assert on_card["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" and "JAX_PLATFORMS" not in on_card
    assert environment(ours, JOB, {})["CUDA_VISIBLE_DEVICES"] == ""


def test_peers_on_a_card() -> None:
    names = [p.name for p in choose("vision", None, "cuda")]
    assert names[:2] == ["torch_eager", AGAINST["cuda"]["vision"]]
    assert {"resident_jax", "resident_torch_graphs"} < set(names)
    assert not {"openvino", "ours_tensorflow"} & set(names)
    assert not {n for n in names if "resident" in n} & {p.name for p in choose("vision", None)}
    named = choose("vlm", ["ours_jax"], "cuda", "transformers_bfloat16_static")
    assert [p.name for p in named] == [
        "transformers_float32", "transformers_bfloat16_static", "ours_jax",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="did you mean"):
        choose("vlm", None, against="transformers_float23")
    for work, table in PEERS.items():
        assert AGAINST["cuda"][work] in table
        assert {d for p in table.values() for d in p.devices} == {"cpu", "cuda"}


def test_runs_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert JOB.runs == {}
    job = replace(JOB, device="cuda")
    assert job.runs["uncounted"] > replace(job, work="vlm").runs["uncounted"] > 0
    values = iter([9.0, 9.0, 3.0, 1.0, 2.0, 4.0, 5.0])
    runner = SimpleNamespace(times=lambda: {"forward": next(values)})
    assert worker.answer(runner, "times 0", **job.runs) == {"times": {"forward": 3.0}}


def test_without_a_card_there_is_nothing_to_measure() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(SystemExit, match="no CUDA device .*--device cpu"):
        card_name()
    for work in PEERS:
        with pytest.raises(SystemExit, match="no CUDA device"):
            command.main(["--device", "cuda", "--work", work])


@pytest.mark.skipif(keras.config.backend() != "torch", reason="peers of PyTorch")
@pytest.mark.parametrize("name", ["torch_eager", "ours_torch", "resident_torch", "openvino"])
def test_peers_refuse_a_card_that_is_not_there(name: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    chosen = PEERS["vision"][name]
    if torch.cuda.is_available() or chosen.missing():
        pytest.skip("there is a card, or no such peer")
    replace(JOB, device="cuda").write(tmp_path)
    with pytest.raises(RuntimeError, match="CUDA device|CPU alone"):
        chosen.load(tmp_path)


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    JOB.write(tmp_path)
    with pytest.raises(PeerError, match="no answer within 0.01 s"):
        Worker(PEERS["vision"]["torch_eager"], tmp_path, limit=0.01)


def test_the_list_names_every_peer(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(PEERS["vision"])


class InProcess:
    """A peer in this process: what a worker does, without the start of one."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.runner = peer.load(folder)
        self.output = self.runner.output

    def times(self, turn_seconds: float) -> dict[str, float]:
        return timing.turn(self.runner.times, turn_seconds)

    def close(self) -> float:
        return 0.0


@pytest.mark.skipif(keras.config.backend() != "torch", reason="both peers in one process: PyTorch")
@pytest.mark.parametrize("network", ["nano", pytest.param("fastvit_t8", marks=pytest.mark.full)])
def test_the_same_network_on_both_sides(network: str, tmp_path: Path) -> None:
    if missing := PEERS["vision"]["torch_eager"].missing():
        pytest.skip(f"not installed: {missing}")
    from tools.compare_peers.prepare import main as prepare

    replace(JOB, network=network).write(tmp_path)
    prepare(tmp_path)
    names = ["torch_eager", "torch_branched", "torch_channels_last", "ours_torch_fused"]
    halves = ["torch_bfloat16_channels_last", "resident_torch", "resident_torch_fused"]
    peers = choose("vision", [*names, "ours_torch", *halves])
    results = compare(peers, tmp_path, 1, 9, 0.0, 0.0, start=InProcess)
    assert [r.reason for r in results] == [None] * 8
    assert all(0 < r.difference < 1e-4 for r in results[1:5])
    assert all(1e-4 < r.difference < 0.1 for r in results[5:])
    assert all(r.ratio["forward"] > 0 for r in results)


def test_a_folder_is_prepared_once_and_for_one_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[Path] = []
    monkeypatch.setattr(command, "prepare", prepared.append)
    folder = tmp_path / "files"
    command.prepare_once(folder, JOB)
    command.prepare_once(folder, JOB)
    assert prepared == [folder] and Job.read(folder) == JOB
    with pytest.raises(SystemExit, match="prepared for"):
        command.prepare_once(folder, replace(JOB, image_size=64))


def test_files_are_written_before_peers_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(folder: Path, file: str) -> Path:
        raise subprocess.CalledProcessError(1, file)

    written: list[str] = []
    monkeypatch.setattr(command, "needed", lambda folder, file: written.append(file))
    engine = replace(peer("engine"), arguments={"file": "ours.onnx"})
    command.write_file_of(engine, tmp_path)
    command.write_file_of(peer("no engine"), tmp_path)
    command.write_file_of(replace(engine, modules=("is_not_installed",)), tmp_path)
    assert written == ["ours.onnx"]
    monkeypatch.setattr(command, "needed", failing)
    command.write_file_of(engine, tmp_path)
    assert "ours.onnx could not be written" in capsys.readouterr().err


@pytest.mark.full
def test_processes_in_turns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--network", "nano", "--image-size", "32", "--repeats", "1", "--pause", "0"]
    arguments += ["--peers", f"ours_{keras.config.backend()}", "--json", str(tmp_path / "a.json")]
    assert command.main(arguments) == 0
    peers = json.loads((tmp_path / "a.json").read_text())["peers"]
    assert [p["reason"] for p in peers] == [None, None]
    assert peers[1]["difference"] < 1e-4 and peers[1]["megabytes"] > 50
    assert "torch_eager" in capfd.readouterr().out


@pytest.mark.full
def test_first_token_and_decoding(tmp_path: Path) -> None:
    numbers = {
        "num_layers": 2, "hidden_dim": 64, "intermediate_dim": 96, "vocabulary_size": 120,
        "num_query_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    arguments = ["--work", "vlm", "--image-size", "64", "--new-tokens", "3", "--repeats", "1"]
    arguments += ["--numbers", json.dumps(numbers), "--json", str(tmp_path / "a.json")]
    assert command.main([*arguments, "--peers", f"ours_{keras.config.backend()}"]) == 0
    peers = json.loads((tmp_path / "a.json").read_text())["peers"]
    assert [p["reason"] for p in peers] == [None, None]
    assert set(peers[1]["median"]) == {"first_token", "token", "second_question"}
