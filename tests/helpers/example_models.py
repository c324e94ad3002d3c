"""Models of frameworks that tests do without: made from bytes, or by a program for where the framework is."""

TRIPLE = """
import sys, tensorflow as tf
class Net(tf.Module):
    def __init__(self):
        self.w = tf.Variable(3.0)
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": self.w * x}
net = Net()
tf.saved_model.save(net, sys.argv[1], signatures=net.__call__)
"""
"""A program that saves a TensorFlow model, y = 3 x, in the folder that it is given."""


def field(number: int, content: bytes | int | str) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def doubling_model() -> bytes:
    """An ONNX model, y = x + x, as onnx.proto has it; the package `onnx` is not needed for that."""
    shape = field(1, field(2, "n")) + field(1, field(1, 2))
    kind = field(2, field(1, field(1, 1) + field(2, shape)))
    node = field(1, "x") + field(1, "x") + field(2, "y") + field(4, "Add")
    graph = field(1, node) + field(2, "g") + field(11, field(1, "x") + kind) + field(12, field(1, "y") + kind)
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
