from kernelprune.quantization.observers import METHODS as METHODS, Observation as Observation
from kernelprune.quantization.options import QuantizeOptions as QuantizeOptions
from kernelprune.quantization.post_training import (
    QuantizedModel as QuantizedModel,
    quantize as quantize,
    quantize_sensitivity as quantize_sensitivity,
)
from kernelprune.quantization.report import (
    LayerReport as LayerReport,
    QuantizationReport as QuantizationReport,
)
from kernelprune.quantization.sensitivity import QuantizationSensitivity as QuantizationSensitivity
from kernelprune.quantization.training import QuantizationAware as QuantizationAware
