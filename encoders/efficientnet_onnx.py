"""EfficientNet-Lite as an ONNX graph, which ONNX Runtime runs several times faster on a CPU than eager torch.

The graph is made node by node from the network that `encoders.efficientnet_lite` has read out of the digest-checked
weights, batch norms folded. Each process makes it anew, in a tenth of a second, and hands it over in memory: a graph in
the cache would be one more file to be believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import NodeProto
    from torch import nn

    from encoders.efficientnet_lite import EfficientNetLite

OPSET = 17
_IR_VERSION = 9  # the oldest that has what opset 17 needs, so that older runtimes read the graph too


class _Graph:
    """Nodes and constants in the making. `value` is the name of the last node's output."""

    def __init__(self, value: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[Any] = []
        self.value = value

    def constant(self, array: npt.ArrayLike) -> str:
        """The name of a new constant."""
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, np.float32, order="C"), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node over the last value and `inputs`, and return the name of what it gives."""
        from onnx import helper

        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.value, *inputs], [name], **attributes))
        self.value = name
        return name

    def module(self, module: nn.Module, pads: tuple[int, int, int, int] = (0, 0, 0, 0)) -> None:
        """Append what `module` computes. `pads` (top, left, bottom, right) belong to the first convolution in it."""
        from torch import nn

        if isinstance(module, nn.Sequential):
            for child in module:
                if isinstance(child, nn.ZeroPad2d):
                    left, right, top, bottom = child.padding
                    pads = (top, left, bottom, right)
                else:
                    self.module(child, pads)
                    pads = (0, 0, 0, 0)
        elif isinstance(module, nn.Conv2d):
            if module.bias is None or isinstance(module.padding, str):
                raise AssertionError("a folded convolution has a bias, and its padding is a number")
            height, width = module.padding
            own = (height, width, height, width)
            self.add(
                "Conv",
                self.constant(module.weight.detach().numpy()),
                self.constant(module.bias.detach().numpy()),
                kernel_shape=list(module.kernel_size),
                strides=list(module.stride),
                pads=[one + other for one, other in zip(own, pads, strict=True)],
                group=module.groups,
            )
        elif isinstance(module, nn.ReLU6):
            self.add("Clip", self.constant(np.float32(0.0)), self.constant(np.float32(6.0)))
        elif not isinstance(module, nn.Identity):
            raise AssertionError(f"no ONNX operator is known for {type(module).__name__}")


def efficientnet_onnx(network: EfficientNetLite) -> bytes:
    """The graph: `images` float32 [n, 3, side, side] in -1..1 to `features` [n, width] in 0..6 and
    `probabilities` [n, 1000], as the methods of `network` compute them."""
    from onnx import TensorProto, checker, helper

    graph = _Graph("images")
    graph.module(network.stem)
    for block, residual in zip(network.blocks, network.residual, strict=True):
        before = graph.value
        graph.module(block)
        if residual:
            graph.add("Add", before)
    graph.module(network.head)
    graph.add("GlobalAveragePool")
    graph.add("Flatten", output="features", axis=1)
    weight, bias = network.classifier.weight.detach().numpy(), network.classifier.bias.detach().numpy()
    graph.add("Gemm", graph.constant(weight), graph.constant(bias), transB=1)
    graph.add("Softmax", output="probabilities", axis=1)

    def tensor(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])

    classes, width = weight.shape
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet-lite",
            [tensor("images", 3, network.image_size, network.image_size)],
            [tensor("features", width), tensor("probabilities", classes)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="reelsense",
    )
    model.ir_version = _IR_VERSION
    checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def onnx_session(graph: bytes, threads: int) -> Any:
    """An ONNX Runtime session on the CPU that runs `graph` with so many threads, which rest while there is no work."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: warnings speak of graph optimisations
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
