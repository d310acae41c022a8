"""Whole models: what stands around the recurrent layers, and their files."""

from unrolled.models.files import load_tree, save_tree
from unrolled.models.language import LanguageModel, OneHot

__all__ = ["LanguageModel", "OneHot", "load_tree", "save_tree"]
