"""Other people's descriptions of models and runs, read into the forms of this house."""

from simulator.importers.huggingface import ConfigError, ConfigProblem, transformer_from_config

__all__ = ["ConfigError", "ConfigProblem", "transformer_from_config"]
