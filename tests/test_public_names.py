"""The names that packages offer to users: a change here is a change of the interface."""

from importlib import import_module

import pytest

PUBLIC = {
    "cells": (
        "ATR AntisymmetricRNN BRC Cell CellError CoRNN CoupledLSTM ExpRNN FastGRNN FastRNN GRU "
        "GatedAntisymmetricRNN Gates IndRNN JANET LEM LSTM LayerNormGRU LayerNormLSTM LiGRU MGU "
        "MinimalRNN MultiplicativeLSTM NBRC ParameterSpec PeepholeLSTM RAN RNN ResetBeforeGRU "
        "SLSTM STAR Sizes State UGRNN Value clip exp hard_sigmoid hard_tanh linear log matrix_exp "
        "maximum mean minimum product relu sigmoid softplus softsign sqrt tanh vector where"
    ),
    "nn": (
        "ArgumentTypeError Conversion GRU GRUCell LSTM LSTMCell RNN RNNCell Recurrent "
        "RecurrentCell TypeCheck convert init"
    ),
    "bench": "",
    "cli": "main",
    "config": (
        "CONFIGS ClassificationConfig Config DataConfig ForecastConfig LanguageModelConfig "
        "ProblemConfig TaggingConfig TranslationConfig"
    ),
    "diagnostics": (
        "ColouredTexts Components GateValues GradientByLag ParameterRow Picture RecurrentMatrix "
        "Saturation Section Table activity coloured_text gate_saturation gate_values "
        "gradient_by_lag input_gradient_by_lag inspect_layer inspect_model loss_curve "
        "most_variable parameter_table principal_components recurrent_matrices write_page"
    ),
    "models": (
        "CellLike CellNameError DotAttention EncoderDecoder InitialStateFromFeatures "
        "LanguageModel LearnedInitialState Memory OneHot Pooling SequenceModel Tagger find_cell "
        "load_tree make_stack published_cells save_tree"
    ),
    "tasks": (
        "Batch Classification DataError Forecaster Forecasting LanguageModelScore "
        "LanguageModeling PredictionInput Shard SyntheticProblems Tagging Task TextError "
        "Translation Vocabulary Window Windows beam class_probabilities detach_state distribution "
        "find_task forecast generate greedy load_language_model load_trained measure "
        "next_token_loss predict_tags prefix_probabilities read_text score_language_model "
        "split_tokens standard_library task_name translate"
    ),
    "tasks.codecs": (
        "ClassificationCodec ForecastingCodec SubwordVocabulary TaggingCodec TextCodec "
        "TokenVocabulary TranslationCodec Vocabulary"
    ),
    "tasks.data": (
        "DataError Sentence Source StandardInput Table TextError read_conll read_table read_text "
        "standard_library write_conll"
    ),
    "tasks.datasets": (
        "ClassifiedSequences DIRECTIONS SERIES SeriesDataset Snippets SpokenWords "
        "SyntheticProblem Utterance adding copy_memory dates digits dyck languages "
        "memoryless_loss moving_digits number_in_words numbers ordinal parity phrases python_tags "
        "series spoken_words utterances year_in_words"
    ),
    "nn.init": "chrono_ rotations_",
    "export": "ExportError export",
    "runtime": "Model Stream Translator load",
    "runtime.frames": "Framer LogMel",
    "train": "Diverged Result TreeCheckpointIO Watch fit resume",
    "program": "Node Program ProgramError TraceError interpret make_program",
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names(package: str) -> None:
    module = import_module(f"unrolled.{package}")
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())
    assert all(hasattr(module, name) for name in module.__all__)
