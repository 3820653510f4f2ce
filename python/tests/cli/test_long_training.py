"""`usae train` for hours: checkpoints, signals, progress in logs, and checks before work."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import usae
from support.autoencoders import planted
from support.commands import SMALL, printed, refusal, run
from support.refusals import names
from usae import cli
from usae._base.progress import Lines

pytest.importorskip("torch")


@pytest.fixture
def stopping(monkeypatch):
    """Let every training raise an exception after some steps."""

    def stop(error, after):
        fit = usae.UniversalSAE.fit

        def stopped(self, acts, **options):
            def callback(report):
                if report.step == after:
                    raise error

            return fit(self, acts, callbacks=[callback], **options)

        monkeypatch.setattr(usae.UniversalSAE, "fit", stopped)

    yield stop


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(pairs, tmp_path, capsys, stopping, monkeypatch):
    options = ["--acts", *pairs, *SMALL, "--checkpoint-minutes", "1e-9"]
    run("train", *options, "--output", tmp_path / "whole")
    resumable = [*options, "--output", tmp_path / "model", "--checkpoint", tmp_path / "new" / "run", "--resume"]
    with monkeypatch.context():
        stopping(KeyboardInterrupt(), after=5)
        assert cli.main([str(each) for each in ("train", *resumable)]) == 130
    monkeypatch.undo()
    assert usae.load(tmp_path / "model").n_steps_ == 5
    told = printed(capsys, "train", *resumable)
    assert told["n_steps"] == 8
    for file in ("model.safetensors",):
        assert (tmp_path / "model" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    line = refusal(capsys, "train", *resumable[:-1])
    assert names("checkpoint", line, anywhere=True) and "resume" in line


@pytest.mark.parametrize("error", [usae.InvalidInputError("the data vanished"), OSError(5, "the disk fails")])
def test_an_error_in_the_middle_costs_nothing_of_what_was_learned(pairs, tmp_path, capsys, stopping, error):
    stopping(error, after=5)
    assert cli.main(["train", "--acts", *pairs, *SMALL, "--output", str(tmp_path / "model")]) == 2
    assert usae.load(tmp_path / "model").n_steps_ == 5 and str(error) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--resume"], "--checkpoint"),
        (["--checkpoint", "{new}"], "--checkpoint"),
        (["--checkpoint", "{new}/run"], "--checkpoint"),
        (["--checkpoint", "{file}"], "{file}"),
        (["--checkpoint", "{file}/run"], "{file}/run"),
        (["--checkpoint", "{run}", "--checkpoint-minutes", "0"], "every_minutes"),
        (["--checkpoint", "{run}", "--checkpoint-minutes", "nan"], "every_minutes"),
        (["--name", "caf\udce9"], "name"),
        (["--acts", "caf\udce9={acts}"], "--acts"),
        (["--output", "{file}/model"], "{file}/model"),
        (["--output", "{new}" + "x" * 300], "{new}" + "x" * 300),
    ],
)
def test_what_cannot_be_saved_is_refused_before_training(pairs, options, name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(usae._core.autoencoder.Autoencoder, "step", lambda *_: pytest.fail("it trained"))
    (tmp_path / "file").write_text("")
    np.save(tmp_path / "a.npy", planted(20, seed=0)["vit"])
    places = {key: tmp_path / key for key in ("new", "file", "run")} | {"acts": tmp_path / "a.npy"}
    given = [each.format(**places) for each in options]
    acts = [] if "--acts" in options else ["--acts", *pairs]
    line = refusal(capsys, "train", *acts, *SMALL, *([] if "--output" in options else ["--output", tmp_path / "new"]), *given)
    assert names(name.format(**places), line, anywhere=True), line
    assert not (tmp_path / "new").exists()


def command(*arguments, **options):
    script = "import sys, usae.cli; sys.exit(usae.cli.main())"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(os.fspath, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        **options,
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("with_checkpoints", [False, True])
@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGTERM, 1), (signal.SIGHUP, 1), (signal.SIGTERM, 30), (signal.SIGINT, 30)]
)
def test_a_signal_that_ends_the_command_costs_nothing_of_what_was_learned(pairs, tmp_path, number, times, with_checkpoints):
    options = ["--checkpoint", tmp_path / "run"] if with_checkpoints else []
    arguments = ["train", "--acts", *pairs, "--output", tmp_path / "model", *SMALL[:-1], "1000000", *options]
    process = command(*arguments, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))  # nohup ignores SIGHUP
    try:
        assert "of 1,000,000" in process.stderr.readline()  # it tells its progress although stderr is no terminal
        for _ in range(times):  # as supervisors do, and terminals that signal a process and its group
            process.send_signal(number)
            time.sleep(0.005)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number and out == "" and "Traceback" not in err, err
    assert usae.load(tmp_path / "model").n_steps_ > 0 and str(tmp_path / "model") in err
    if with_checkpoints:
        assert usae.Checkpoints(tmp_path / "run").load().n_steps_ > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("early", [False, True])
def test_signals_while_the_result_is_saved(pairs, tmp_path, capsys, stopping, monkeypatch, number, early):
    def save(self, folder):
        for _ in range(3):
            os.kill(os.getpid(), number)
        real(self, folder)

    real = usae.UniversalSAE.save
    monkeypatch.setattr(usae.UniversalSAE, "save", save)
    if early:
        stopping(OSError("the disk fails"), after=5)
    arguments = ["train", "--acts", *pairs, *SMALL, "--output", str(tmp_path / "model")]
    assert cli.main(arguments) == (130 if number == signal.SIGINT else 143)
    assert usae.load(tmp_path / "model").n_steps_ == (5 if early else 8) and "lost" not in capsys.readouterr().err


def test_a_second_ctrl_c_after_two_seconds_ends_the_saving_and_says_what_is_lost(pairs, tmp_path, capsys, monkeypatch):
    def save(self, folder):
        now = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(time, "monotonic", lambda: now + 2.5)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("not reached")

    monkeypatch.setattr(usae.UniversalSAE, "save", save)
    assert cli.main(["train", "--acts", *pairs, *SMALL, "--output", str(tmp_path / "model")]) == 130
    err = capsys.readouterr().err
    assert re.search(r"\b8\b", err) and len(err.splitlines()[-1:]) == 1 and "Traceback" not in err  # the steps that are lost


def test_a_signal_that_is_ignored_stays_so(monkeypatch, capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(cli, "_info", lambda options: os.kill(os.getpid(), signal.SIGHUP))
        assert cli.main(["info"]) == 0 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_progress_is_told_in_lines_where_there_is_no_terminal(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Lines, "SECONDS", 0)
    capsys.readouterr()
    run("train", "--acts", *pairs, "--output", tmp_path / "model", *SMALL, "--json")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8 and all(f"{i} of 8" in line and "loss" in line for i, line in enumerate(lines, 1))
    usae.UniversalSAE(16, 2).fit(planted(100, seed=0), steps=2)
    assert capsys.readouterr().err == ""  # as a library it stays silent


def test_lines_of_progress_are_few_and_survive_a_stderr_that_is_closed(capsys, monkeypatch):
    bar = Lines(1000, "training", "step", 0)
    for _ in range(1000):
        bar.update()
    assert len(capsys.readouterr().err.splitlines()) == 2

    class Gone:
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    Lines(None, "training", "step", 0).update()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes")
def test_names_of_files_that_are_no_text_can_be_used_and_printed(pairs, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    ascii_only = dict(os.environ, PYTHONIOENCODING="ascii")
    for arguments in (["train", "--acts", *pairs, *SMALL], ["evaluate", "--acts", *pairs]):
        places = ["--output", name] if arguments[0] == "train" else ["--model", name, "--output", name + "-numbers"]
        process = command(*arguments, *places, env=ascii_only)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0 and "caf" in out, err
    assert pathlib.Path(name + "-numbers", "evaluation.npz").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_has_gone_ends_the_command_without_words():
    read, write = os.pipe()
    os.close(read)
    script = "import sys, usae.cli; sys.exit(usae.cli.main(['info']))"
    done = subprocess.run([sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_line_of_an_error_is_one_and_harmless(capsys):
    line = refusal(capsys, "evaluate", "--model", "a\nb\x1b[2J\udce9", "--acts", "x")
    assert line.isascii() and line.rstrip("\n").isprintable()
    assert names("--model", line, anywhere=True)
    assert refusal(capsys, "evaluate", "a\n\x1b[2J").rstrip("\n").isprintable()


@pytest.mark.parametrize("what", ["pipe", "folder", "empty", "header", "shape", "objects", "records", "text", "number"])
def test_a_file_that_holds_no_activations_is_named(what, tmp_path, capsys):
    file = tmp_path / "a.npy"
    header = b"\x93NUMPY\x01\x00\x76\x00"
    if what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    elif what in ("empty", "header", "shape"):
        texts = {
            "empty": b"",
            "header": header + b"[" * 118,
            "shape": header
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 99999999), }".ljust(117)
            + b"\n",
        }
        file.write_bytes(texts[what])
    else:
        arrays = {
            "objects": np.array([[None]]),
            "records": np.zeros((2, 2), [("x", "f4")]),
            "text": np.array([["1"]]),
            "number": np.float32(1),
        }
        np.save(file, arrays[what], allow_pickle=True)
    start = time.monotonic()
    line = refusal(capsys, "train", "--acts", f"a={file}", "--output", tmp_path / "new")
    assert names("--acts", line, anywhere=True) and time.monotonic() - start < 60, line
