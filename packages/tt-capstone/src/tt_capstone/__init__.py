"""Chapter 20: a chat model that answers, a server for it, networks that leave as ONNX, projects with a budget."""

from tt_capstone.capstone import (
    FileTokenizer, LanguageModel, Llama, LlamaBlock, LlamaConfig, LlamaTransformer, PARTS, SMOLLM2, SMOLLM2_FILE,
    bytes_of_a_token, llama_config, llama_parameters, load_language_model, load_llama, weights_file,
)
from tt_capstone.cards import DataFacts, ModelCard, accuracy_interval, measure_card, read_card, write_card
from tt_capstone.engine import Engine, Full, Piece, Stopped, Token
from tt_capstone.fused import FusedTransformer, fuse_
from tt_capstone.llama_files import load_llama_folder, save_llama, save_llama_gguf
from tt_capstone.onnx_files import WithCache, export_language_model, export_onnx
from tt_capstone.onnx_reader import import_onnx
from tt_capstone.projects import Budget, check_project, new_project, read_budget
from tt_capstone.shipping import ship
from tt_capstone.weights import fetch_weights, find_language_model, find_weights

# The contract: what other packages may use.
__all__ = [
    "FileTokenizer", "LanguageModel", "Llama", "LlamaBlock", "LlamaConfig", "LlamaTransformer", "PARTS", "SMOLLM2",
    "SMOLLM2_FILE", "bytes_of_a_token", "llama_config", "llama_parameters", "load_language_model", "load_llama",
    "save_llama_gguf", "weights_file", "Budget", "DataFacts", "Engine", "Full", "FusedTransformer", "ModelCard",
    "Piece", "Stopped", "Token", "WithCache", "accuracy_interval", "check_project", "export_language_model",
    "export_onnx", "fetch_weights", "find_language_model", "find_weights", "fuse_", "import_onnx", "load_llama_folder",
    "measure_card", "new_project", "read_budget", "read_card", "save_llama", "ship", "write_card",
]
