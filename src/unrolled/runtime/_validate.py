"""Checks that a model is consistent (widths along the chain, arrays, programs) and that a file does
not require too much memory, before the model is built."""

from collections.abc import Iterator
from itertools import pairwise

from unrolled._limits import Budget, brief
from unrolled.runtime._schema import (
    FORMATS,
    MERGES,
    POOLINGS,
    AttentionBlock,
    Block,
    ChainModel,
    EmbeddingBlock,
    ForecastBlock,
    LastBlock,
    LayerDirection,
    LinearBlock,
    PoolingBlock,
    RecurrentBlock,
    ScaleBlock,
    TranslatorModel,
    WordsBlock,
)


def check_format(owner: str, weights: str) -> None:
    """
    Args:
        owner: the start of the message.

    Raises:
        ValueError: the core has no weights of this format.
    """
    if weights not in FORMATS:
        raise ValueError(
            f"{owner}: weights must be one of {', '.join(FORMATS)}, got {brief(weights)}"
        )


def check_model(model: ChainModel | TranslatorModel, size: int | None = None) -> None:
    """Check all blocks, and the memory and work that they require.

    Args:
        size: the size of the file in bytes, which limits what it may require; None if there is no
            file.

    Raises:
        ValueError, TypeError: values are inconsistent, or the file requires more than it may.
    """
    budget = None if size is None else Budget(size)
    if isinstance(model, ChainModel):
        _check_chain(model.blocks, "blocks", budget)
    else:
        _check_translator(model, budget)


def _check_chain(blocks: tuple[Block, ...], name: str, budget: Budget | None) -> None:
    """Check each block, its position, and that it can read the output of the block before."""
    width: int | None = None  # the width of the current rows; None while it is unknown
    previous: Block | None = None
    pooled = False
    for block in blocks:
        _check_block(block, budget)
        _check_place(block, previous, pooled)
        inputs = _inputs(block, width)
        if inputs is not None and inputs < 1:
            raise ValueError(f"{block.block}: inputs must be at least 1, got {inputs}")
        if width not in (None, inputs):
            raise ValueError(
                f"{block.block}: inputs must be {width}, the width of the block before, "
                f"got {inputs}"
            )
        width = _width(block, inputs)
        if budget is not None:
            budget.take(width or 0, name)
        pooled = pooled or isinstance(block, LastBlock | PoolingBlock)
        previous = block
    if not any(isinstance(block, RecurrentBlock) for block in blocks):
        raise ValueError(f"{name}: one block must be recurrent, got none")
    _check_targets(blocks)


def _check_block(block: Block | AttentionBlock, budget: Budget | None) -> None:
    """Check the values of one block."""
    match block:
        case EmbeddingBlock():
            if block.weight.size == 0:
                raise ValueError(
                    f"embedding: weight must not be empty, got shape {list(block.weight.shape)}"
                )
        case ScaleBlock():
            if block.mean.shape != block.deviation.shape:
                raise ValueError(
                    f"scale: deviation must have shape {list(block.mean.shape)}, that of mean, "
                    f"got {list(block.deviation.shape)}"
                )
        case LinearBlock():
            _check_linear(block)
        case PoolingBlock():
            _check_pooling(block)
        case RecurrentBlock():
            _check_recurrent(block, budget)
        case WordsBlock():
            _check_recurrent(block.spelling, budget)
            width = block.characters.shape[1]
            if block.spelling.inputs != width:
                raise ValueError(
                    f"words: inputs of spelling must be {width}, the width of characters, "
                    f"got {block.spelling.inputs}"
                )
        case ForecastBlock():
            _check_forecast(block)
        case AttentionBlock():
            _check_linear(block.combine)


def _check_linear(block: LinearBlock) -> None:
    if 0 in block.weight.shape:
        raise ValueError(f"linear: weight must not be empty, got shape {list(block.weight.shape)}")
    if block.bias is not None and block.bias.size != block.width:
        raise ValueError(f"linear: bias must have {block.width} numbers, got {block.bias.size}")


def _check_pooling(block: PoolingBlock) -> None:
    if block.name not in POOLINGS:
        raise ValueError(
            f"pooling: name must be one of {', '.join(POOLINGS)}, got {brief(block.name)}"
        )
    if block.name != "attention":
        if block.keys is not None or block.query is not None:
            raise ValueError(f"pooling: keys and query must be None with {block.name}")
        return
    if block.keys is None or block.query is None:
        raise ValueError("pooling: keys and query must be linear blocks with attention, got None")
    for linear in (block.keys, block.query):
        _check_linear(linear)
    if block.keys.inputs != block.width:
        raise ValueError(
            f"pooling: inputs of keys must be width = {block.width}, got {block.keys.inputs}"
        )
    if (block.query.inputs, block.query.width) != (block.keys.width, 1):
        raise ValueError(
            f"pooling: weight of query must have shape {[1, block.keys.width]}, "
            f"got {list(block.query.weight.shape)}"
        )


def _check_forecast(block: ForecastBlock) -> None:
    for name, size in (("horizon", block.horizon), ("targets", block.targets)):
        if size < 1:
            raise ValueError(f"forecast: {name} must be at least 1, got {size}")
    for name, array in (("mean", block.mean), ("deviation", block.deviation)):
        if array is not None and len(array) != block.targets:
            raise ValueError(
                f"forecast: {name} must have shape [{block.targets}], one for each target, "
                f"got {list(array.shape)}"
            )


def _check_place(block: Block, previous: Block | None, pooled: bool) -> None:
    if isinstance(block, EmbeddingBlock | ScaleBlock | WordsBlock) and previous is not None:
        raise ValueError(f"{block.block}: must be the first block, got it behind {previous.block}")
    if isinstance(block, LastBlock | PoolingBlock) and not isinstance(previous, RecurrentBlock):
        where = "first" if previous is None else f"behind {previous.block}"
        raise ValueError(f"{block.block}: must be behind a recurrent block, got it {where}")
    if isinstance(block, RecurrentBlock) and pooled:
        raise ValueError("recurrent: must be before the end of sequences, got it behind")
    if isinstance(previous, ForecastBlock):
        raise ValueError(f"{block.block}: must be before the forecast, got it behind")
    if isinstance(block, ForecastBlock) and not pooled:
        raise ValueError("forecast: must be behind the end of sequences, got it before")


def _check_targets(blocks: tuple[Block, ...]) -> None:
    """Check that a forecast continues columns that the model reads."""
    head, forecast = blocks[0], blocks[-1]
    if not isinstance(forecast, ForecastBlock):
        return
    columns = 0
    if isinstance(head, ScaleBlock):
        columns = head.width
    elif isinstance(head, LinearBlock | RecurrentBlock):
        columns = head.inputs
    if forecast.targets > columns:
        raise ValueError(
            f"forecast: targets must be at most {columns}, the columns that the model reads, "
            f"got {forecast.targets}"
        )


def _inputs(block: Block, width: int | None) -> int | None:
    """The width of the rows that a block reads, which are now ``width`` wide."""
    if isinstance(block, LinearBlock | RecurrentBlock | ForecastBlock):
        return block.inputs
    return block.width if isinstance(block, PoolingBlock | ScaleBlock) else width


def _width(block: Block, inputs: int | None) -> int | None:
    """The width of the rows that a block computes."""
    if isinstance(block, EmbeddingBlock | WordsBlock | LinearBlock | RecurrentBlock):
        return block.width
    return inputs


def _check_recurrent(block: RecurrentBlock, budget: Budget | None) -> None:
    """Check that layers match each other, and that initial states match the layers."""
    if block.merge not in MERGES:
        raise ValueError(f"recurrent: merge must be concat or sum, got {brief(block.merge)}")
    counts = {len(layer) for layer in block.layers}
    if counts not in ({1}, {2}):
        raise ValueError(
            "recurrent: layers must have one direction each, or two, "
            f"got {brief([len(layer) for layer in block.layers])}"
        )
    for layer in block.layers:
        for direction in layer:
            _check_direction(direction, budget)
        if block.merge == "sum" and len({direction.width for direction in layer}) > 1:
            raise ValueError(
                "recurrent: directions must have one width with merge='sum', "
                f"got {[direction.width for direction in layer]}"
            )
        if any(direction.inputs < 1 for direction in layer):
            raise ValueError("recurrent: inputs must be at least 1, got 0")
    for below, layer in pairwise(block.layers):
        width = block.merged_width(below)
        for direction in layer:
            if direction.inputs != width:
                raise ValueError(
                    f"recurrent: inputs of a layer must be {width}, the width of the layer below, "
                    f"got {direction.inputs}"
                )
    if len({direction.inputs for direction in block.layers[0]}) > 1:
        raise ValueError("recurrent: directions must read the same inputs, got different ones")
    if block.start is None:
        return
    shapes = [
        [(1, width) for width in direction.state_widths]
        for layer in block.layers
        for direction in layer
    ]
    got = [[state.shape for state in states] for states in block.start]
    if got != shapes:
        raise ValueError(f"recurrent: start must have shapes {brief(shapes)}, got {brief(got)}")


def _check_direction(direction: LayerDirection, budget: Budget | None) -> None:
    """Check the program, and that all of its arrays are present."""
    program = direction.core_program
    if program.state_widths[0] != direction.width:
        raise ValueError(
            f"recurrent: sizes must end with {program.state_widths[0]}, the width of the program's "
            f"output, got {direction.width}"
        )
    if budget is not None:
        budget.take(program.footprint, "program")
    if direction.inputs < 0:
        raise ValueError(f"recurrent: sizes must not be negative, got {list(direction.sizes)}")
    expected = list(_expected_arrays(direction))
    if len(direction.arrays) != len(expected):
        raise ValueError(
            f"recurrent: arrays must be {len(expected)}, one for each that the program names, "
            f"got {len(direction.arrays)}"
        )
    for array, (name, count) in zip(direction.arrays, expected, strict=True):
        if array is None and name == "weight":
            raise ValueError("recurrent: weight must be an array, got None")
        if array is not None and array.size != count:
            raise ValueError(f"recurrent: {name} must have {count} numbers, got {array.size}")
    numbers = sum(array.size for array in direction.arrays if array is not None)
    Budget(4 * numbers).take(program.footprint, "program")


def _expected_arrays(direction: LayerDirection) -> Iterator[tuple[str, int]]:
    """The name and the number of elements of each array of a program whose text is valid."""
    letters = dict(zip("IHP", direction.sizes, strict=True))
    products: list[tuple[int, int]] = []  # rows, columns
    vectors: list[int] = []

    def width(word: str) -> int:
        return letters[word] if word in letters else int(word)

    for line in direction.program.split("\n"):
        match line.split():
            case ["input", parts, units, *blocks]:
                columns = direction.inputs // int((blocks or "1")[0])
                products.insert(0, (int(parts) * width(units), columns))
            case ["product", parts, units, source, *blocks]:
                columns = width(source) // int((blocks or "1")[0])
                products.append((int(parts) * width(units), columns))
            case ["vector", units]:
                vectors.append(width(units))
    for count, columns in products:
        yield "weight", count * columns
        yield "bias", count
    for count in vectors:
        yield "vector", count


def _check_translator(model: TranslatorModel, budget: Budget | None) -> None:
    """Check both chains, and that the decoder matches the encoder."""
    target, decoder, attention, head = model.decoder
    encoder = model.encoder[1]
    _check_chain(model.encoder, "encoder", budget)
    _check_chain((target, decoder, head), "decoder", budget)
    if attention is not None:
        _check_block(attention, budget)
        width, combine = decoder.width, attention.combine
        if (combine.inputs, combine.width) != (2 * width, width):
            raise ValueError(
                f"attention: weight of combine must have shape {[width, 2 * width]}, "
                f"got {list(combine.weight.shape)}"
            )
        if encoder.width != width:
            raise ValueError(
                f"attention: width of the encoder must be {width}, that of the decoder, "
                f"got {encoder.width}"
            )
    _check_initial_states(encoder, decoder)
    tokens = min(len(target.weight), head.width)
    for name, token in (("begin", model.begin), ("end", model.end)):
        check_token(name, token, tokens)


def check_token(name: str, token: object, tokens: int) -> None:
    """
    Raises:
        ValueError: the value is not a token below ``tokens``.
    """
    if type(token) is not int or not 0 <= token < tokens:
        raise ValueError(
            f"Translator: {name} must be a token from 0 to {tokens - 1}, got {brief(token)}"
        )


def _check_initial_states(encoder: RecurrentBlock, decoder: RecurrentBlock) -> None:
    """Check that the decoder can start from the encoder's final states, of which those of two
    directions are added."""
    if decoder.num_directions != 1:
        raise ValueError(f"decoder: must have one direction, got {decoder.num_directions}")
    for layer in encoder.layers:
        if len({direction.state_widths for direction in layer}) > 1:
            raise ValueError("encoder: directions must have states of the same widths")
    widths, expected = (
        [layer[0].state_widths for layer in block.layers] for block in (encoder, decoder)
    )
    if widths != expected:
        raise ValueError(
            f"decoder: widths of its states must be {brief(widths)}, those of the encoder, "
            f"got {brief(expected)}"
        )
