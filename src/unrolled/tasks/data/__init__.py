"""Readers of the user's data: files and standard input, tables, labelled tokens, texts."""
