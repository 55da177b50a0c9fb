# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor


ExportableModule: Any
InputObserver: Any
JitScalarType: Any
ONNXProgram: Any
OnnxExporterError: Any
OperatorExportTypes: Any
TYPE_CHECKING: Any
TensorProtoDataType: Any
TrainingMode: Any
errors: Any
export: Any
is_in_onnx_export: Any
operators: Any
ops: Any
producer_name: Any
producer_version: Any
register_custom_op_symbolic: Any
select_model_mode_for_export: Any
symbolic_helper: Any
symbolic_opset10: Any
symbolic_opset11: Any
symbolic_opset12: Any
symbolic_opset13: Any
symbolic_opset14: Any
symbolic_opset15: Any
symbolic_opset16: Any
symbolic_opset17: Any
symbolic_opset18: Any
symbolic_opset19: Any
symbolic_opset20: Any
symbolic_opset7: Any
symbolic_opset8: Any
symbolic_opset9: Any
testing: Any
unregister_custom_op_symbolic: Any
utils: Any
verification: Any
