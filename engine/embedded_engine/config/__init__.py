"""The project, the stack's settings and what a program gets of them."""

from embedded_engine.config.project import Declaration, Project, load_project, parse_project
from embedded_engine.config.resolve import Blind, Configuration, resolve
from embedded_engine.config.settings import StackSettings, full_key, load_settings, settings_path

__all__ = [
    "Blind",
    "Configuration",
    "Declaration",
    "Project",
    "StackSettings",
    "full_key",
    "load_project",
    "load_settings",
    "parse_project",
    "resolve",
    "settings_path",
]
