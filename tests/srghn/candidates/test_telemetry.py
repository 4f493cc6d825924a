"""ONNX Runtime keeps what it would send to its makers in the user's home, unless told not to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import onnx
from onnx import TensorProto, helper
from srghn.candidates.candidate import OnnxPolicy
info = helper.make_tensor_value_info
made = [info(name, TensorProto.FLOAT, ["b", 2]) for name in ("obs", "action")]
node = helper.make_node("Identity", ["obs"], ["action"])
graph = helper.make_graph([node], "g", made[:1], made[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
OnnxPolicy.from_bytes(model.SerializeToString(), "it")
"""


def test_a_policy_that_is_loaded_leaves_nothing_to_be_sent(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", CODE], env={**environment, "HOME": str(tmp_path)}, check=True
    )
    assert [str(found) for found in tmp_path.rglob("*onnxruntime*")] == []
