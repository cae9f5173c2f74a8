"""Configuration: TOML text → a validated model → `spec`. The only room that imports pydantic or tomli."""

from relayd.config.load import Loaded, load, load_admin
from relayd.config.problems import ConfigError, Problem

__all__ = ["ConfigError", "Loaded", "Problem", "load", "load_admin"]
