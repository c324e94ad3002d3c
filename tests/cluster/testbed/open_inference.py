"""gRPC of the Open Inference Protocol (V2), as much of its messages as a tensor of doubles takes there and back.

Field numbers are the specification's (open-inference-protocol, `GRPCInferenceService`).
"""

import struct
from collections.abc import Sequence

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

INFER = "/inference.GRPCInferenceService/ModelInfer"
_Field = descriptor_pb2.FieldDescriptorProto
_ONE, _MANY = _Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED
_TENSOR = (
    ("name", 1, _ONE, _Field.TYPE_STRING, ""),
    ("datatype", 2, _ONE, _Field.TYPE_STRING, ""),
    ("shape", 3, _MANY, _Field.TYPE_INT64, ""),
    ("contents", 5, _ONE, _Field.TYPE_MESSAGE, "Contents"),
)
_MESSAGES = {
    "Contents": (("fp64_contents", 7, _MANY, _Field.TYPE_DOUBLE, ""),),
    "Tensor": _TENSOR,
    "ModelInferRequest": (
        ("model_name", 1, _ONE, _Field.TYPE_STRING, ""),
        ("inputs", 5, _MANY, _Field.TYPE_MESSAGE, "Tensor"),
        ("raw_input_contents", 7, _MANY, _Field.TYPE_BYTES, ""),
    ),
    "ModelInferResponse": (
        ("model_name", 1, _ONE, _Field.TYPE_STRING, ""),
        ("outputs", 5, _MANY, _Field.TYPE_MESSAGE, "Tensor"),
        ("raw_output_contents", 6, _MANY, _Field.TYPE_BYTES, ""),
    ),
}


def _types() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package="inference", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for label, number, many, kind, of in fields:
            field = message.field.add(name=label, number=number, label=many, type=kind)
            if of:
                field.type_name = f".inference.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in _MESSAGES
    }


_TYPES = _types()


def asked(model: str, name: str, rows: Sequence[Sequence[float]]) -> bytes:
    """A request with one tensor."""
    tensor = {"name": name, "datatype": "FP64", "shape": [len(rows), len(rows[0])]}
    values = [value for row in rows for value in row]
    raw = struct.pack(f"<{len(values)}d", *values)
    request = _TYPES["ModelInferRequest"](model_name=model, inputs=[tensor], raw_input_contents=[raw])
    return request.SerializeToString()


def answered(content: bytes) -> list[float]:
    """The values of the one tensor of an answer, which servers write in either form."""
    answer = _TYPES["ModelInferResponse"].FromString(content)
    if answer.raw_output_contents:
        (raw,) = answer.raw_output_contents
        return [value for (value,) in struct.iter_unpack("<d", raw)]
    (tensor,) = answer.outputs
    return list(tensor.contents.fp64_contents)
