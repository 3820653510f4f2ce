"""What a command cannot do is said in one line, with the name of what cannot be used."""

import numpy as np
import pytest

import usae
from support.autoencoders import planted
from support.commands import refusal
from support.refusals import names

pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("extract --network demo --output {new}", "--images"),
        ("extract --images nowhere --network demo --output {new}", "--images"),
        ("extract --images {made}/acts --network demo --output {new}", "images"),
        ("extract --images {made}/photographs --network demo --grid 8 --output {new}", "--grid"),
        ("extract --images {made}/photographs --network demo --dtype int8 --output {new}", "--dtype"),
        ("extract --images {made}/photographs --network demo --batch-size 0 --output {new}", "batch_size"),
        ("extract --images {made}/photographs --network demo --device abacus --output {new}", "--device"),
        ("extract --images {made}/photographs --network demo --dtype float32 --output {made}/acts", "dtype"),
        ("extract --images {made}/photographs --network demo --output {made}/model", "{made}/model"),
        ("train --output {new}", "--acts"),
        ("train --acts nowhere --output {new}", "--acts"),
        ("train --acts {made}/model --output {new}", "{made}/model"),
        ("train --acts a=nowhere.npy --output {new}", "--acts a"),
        ("train --acts a={made}/photographs/00.png --output {new}", "--acts a"),
        ("train --acts {made}/acts a=b.npy --output {new}", "--acts"),
        ("train --acts {made}/acts --steps 5 --epochs 2 --output {new}", "epochs"),
        ("train --acts {made}/acts --steps 5 --total-steps 600 --output {new}", "steps"),
        ("train --acts {made}/acts --recipe published --steps 5 --total-steps 6 --output {new}", "steps"),
        ("train --acts {made}/acts --k 0 --steps 1 --output {new}", "k"),
        ("train --acts {made}/acts --threads 0 --output {new}", "--threads"),
        ("train --acts {made}/acts --merge-cosine 2 --output {new}", "merge_cosine"),
        ("train --acts {made}/acts --batch-size 0 --recipe published --output {new}", "batch_size"),
        ("train --acts {made}/acts --prefixes 1/2 --output {new}", "prefixes"),
        ("train --acts {made}/acts --selection most --output {new}", "--selection"),
        ("train --acts {made}/acts --lerning-rate 1 --output {new}", "--lerning-rate"),
        ("train --acts {made}/acts --output {made}/acts", "{made}/acts"),
        ("train --acts {made}/acts --validation {others} --output {new}", "validation"),
        ("train --acts {made}/acts --mask nowhere.npy --output {new}", "--mask"),
        ("train --acts {made}/acts --mask {masks}/few.npy --output {new}", "--mask"),
        ("train --acts {made}/acts --mask classifier={masks}/none.npy --output {new}", "--mask['classifier']"),
        ("train --acts {made}/acts --mask dinov2={masks}/few.npy --output {new}", "--mask"),
        ("train --acts {made}/acts --validation-mask {masks}/few.npy --output {new}", "--validation"),
        ("evaluate --model {made}/model --acts {made}/acts --mask {masks}/none.npy", "--mask"),
        ("extract --images {made}/photographs --network demo --mask nowhere.npy --output {new}", "--mask"),
        ("maximize {made}/model --concept 3 --network demo --mask {masks}/few.npy --output {new}", "--acts"),
        ("evaluate {made}/model --acts {made}/acts --output {masks}/few.npy", "--output"),
        ("evaluate {made}/model --acts {made}/acts --output {masks}/few.npy/new", "--output"),
        ("maximize {made}/model --concept 3 --network demo --output {masks}/few.npy", "--output"),
        ("extract --images {made}/photographs --network demo --output {masks}/few.npy/new/er", "--output"),
        ("evaluate --acts {made}/acts", "--model"),
        ("evaluate {made}/model --model {made}/model --acts {made}/acts", "--model"),
        ("maximize {made}/model --concept 3 --network a=no:f b=no:g --layer a=x c=y --output {new}", "--layer"),
        ("evaluate --model nowhere --acts {made}/acts", "--model"),
        ("evaluate --model {made}/acts --acts {made}/acts", "{made}/acts"),
        ("evaluate --model {made}/model --acts {others}", "'dinov2'"),
        ("evaluate --model {made}/model --acts {made}/acts --threshold -1", "threshold"),
        ("evaluate --model {made}/model --acts {made}/acts --threshold low", "--threshold"),
    ],
)  # fmt: skip
def test_what_a_command_cannot_do_is_one_line(arguments, name, made, tmp_path, capsys):
    if "{others}" in arguments:  # a store of other models
        with usae.ActivationStore.create(tmp_path / "others") as store:
            store.append(planted(20, seed=0))
    if ".npy" in arguments:
        np.save(tmp_path / "few.npy", np.ones(3, bool))
        np.save(tmp_path / "none.npy", np.zeros(12 * 64, bool))
    places = {"made": made, "new": tmp_path / "new", "others": tmp_path / "others", "masks": tmp_path}
    line = refusal(capsys, *arguments.format(**places).split())
    assert names(name.format(**places), line, anywhere=True), line
    assert not (tmp_path / "new").exists()
