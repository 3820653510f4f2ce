"""Networks of ONNX files, by onnx2torch, as docs/extraction.md says."""

import pathlib
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import usae.torch
from support.refusals import refuses

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def onnx2torch():
    import support.torchvision_without_cuda  # noqa: F401  # which onnx2torch imports

    return pytest.importorskip("onnx2torch")


WEIGHTS = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("constant", [False, True], ids=["initializer", "constant"])
def test_the_page_makes_a_model_of_an_onnx_file(onnx2torch, tmp_path, monkeypatch, constant):
    helper = onnx.helper
    weights = onnx.numpy_helper.from_array(WEIGHTS, "weights")
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["a"], name="stem", kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("GlobalAveragePool", ["b"], ["pooled"], name="pool"),
    ]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["weights"], value=weights))
    shapes = {"images": ["n", 3, 224, 224], "pooled": ["n", 4, 1, 1]}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], [] if constant else [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), tmp_path / "network.onnx")
    monkeypatch.chdir(tmp_path)

    page = pathlib.Path(__file__).parents[3] / "docs" / "extraction.md"
    (code,) = re.findall(r"```python\n(import onnx\n.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names = {"usae": usae}
    exec(code, names)
    images = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 224, 224)).astype(np.float32))
    expected = F.relu(F.conv2d(images, torch.from_numpy(WEIGHTS), stride=16)).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(names["layer"](images), expected.numpy(), rtol=1e-4, atol=1e-3)
    activations, pull = names["layer"].vjp(images.numpy())
    assert pull(np.ones_like(activations)).any()
    with refuses("layer", "'acts'", "'act'"):
        usae.torch.Model(names["network"], "acts", size=224)
