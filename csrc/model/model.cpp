// Reads the blocks of a model from the description in its file. Nothing in it is trusted.
#include "model/model.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <stdexcept>
#include <utility>

#include "model/tree.h"
#include "support/sizes.h"

namespace unrolled {
namespace {

constexpr Index kTreeVersion = 1, kVersion = 3;  // as io.py and runtime/_schema.py have them
constexpr std::size_t kMaxShown = 1000;          // characters of a reason

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument(what); }

}  // namespace

// Reads blocks in their order; each must read the width that the one before it outputs.
class ModelReader {
public:
    ModelReader(Model& model, const std::string& weights)
        : model_(model), weights_(weights), budget_(model.file_.size()) {}

    void read(const Tree& tree) {
        if (tree.at("kind").string() != "unrolled model")
            fail("kind must be 'unrolled model', got '" + tree.at("kind").string() + "'");
        const Index version = tree.at("version").integer();
        if (version < 1 || version > kVersion)
            fail("version must be from 1 to " + std::to_string(kVersion) + ", got " +
                 std::to_string(version));
        format_ = weight_format_of(weights_.empty() ? tree.at("weights").string() : weights_);
        if (const Tree task = tree.at("task"); !task.none()) task.string();
        tree.at("codec");
        if (tree.has("batch_first") && !tree.at("batch_first").is_boolean())
            fail("batch_first must be a boolean");
        if (tree.has("encoder")) fail("encoder: translators are not in the C interface");
        tree.at("blocks").items([this](const Tree& block) {
            read_block(block);
            budget_.take(width_, "blocks");
        });
        if (!layers_) fail("blocks: one block must be recurrent, got none");
        Source& source = model_.source_;
        model_.inputs_ = source.table ? 1 : source.width;
        model_.outputs_ = width_;
    }

private:
    enum class Previous { nothing, layer, other };

    void read_block(const Tree& value) {
        const std::string name = value.at("block").string();
        const bool first = previous_ == Previous::nothing, behind_layer = previous_ == Previous::layer;
        previous_ = name == "recurrent" ? Previous::layer : Previous::other;
        if ((name == "embedding" || name == "scale") && !first) fail(name + ": must be the first block");
        if ((name == "last" || name == "pooling") && !behind_layer)
            fail(name + ": must be behind a recurrent block");
        if (name == "words" || name == "forecast") fail(name + ": not in the C interface");
        if (name == "embedding") return read_embedding(value);
        if (name == "scale") return read_scale(value);
        if (name == "recurrent") return read_layers(value);
        ended_ = ended_ || name == "last" || name == "pooling";
        if (name == "last") return;
        Block block;
        if (name == "linear") {
            block.linear = read_line(value);
            enter(block.linear->source);
            width_ = block.linear->width;
        } else if (name == "pooling") {
            block.pooling = read_pooling(value);
            enter(block.pooling->width);
        } else {
            block.activation = activation_of(name);
        }
        model_.blocks_.push_back(std::move(block));
    }

    // Checks the number of inputs of the next block.
    void enter(Index reads) {
        if (reads < 1) fail("blocks: inputs must be at least 1, got " + std::to_string(reads));
        if (width_ == 0) model_.source_.width = reads;
        else if (width_ != reads)
            fail("blocks: inputs must be " + std::to_string(width_) +
                 ", the width of the block before, got " + std::to_string(reads));
        width_ = reads;
    }

    void read_embedding(const Tree& value) {
        const Numbers table = numbers(value.at("weight"), 2);
        if (table.floats.count == 0) fail("embedding: weight must not be empty");
        model_.source_.V = table.shape[0];
        model_.source_.table = table.floats.numbers;
        enter(table.shape[1]);
    }

    void read_scale(const Tree& value) {
        const Array& mean = array(value.at("mean"), "F64", 1);
        const Array& deviation = array(value.at("deviation"), "F64", 1);
        if (mean.count != deviation.count)
            fail("scale: deviation must have shape [" + std::to_string(mean.count) +
                 "], that of mean, got [" + std::to_string(deviation.count) + "]");
        model_.source_.mean = static_cast<const double*>(mean.numbers);
        model_.source_.deviation = static_cast<const double*>(deviation.numbers);
        enter(mean.count);
    }

    const Linear* read_line(const Tree& value) {
        const Numbers weight = numbers(value.at("weight"), 2);
        const Tree bias = value.at("bias");
        return &model_.linears_.emplace_back(weight.floats,
                                             bias.none() ? FloatView{} : numbers(bias, 1).floats,
                                             weight.shape[0], weight.shape[1], format_, "");
    }

    const Pooling* read_pooling(const Tree& value) {
        const auto linear = [&](const char* name) {
            const Tree block = value.at(name);
            if (block.none()) return static_cast<const Linear*>(nullptr);
            if (block.at("block").string() != "linear") fail("pooling: keys and query must be linear blocks");
            return read_line(block);
        };
        const Linear* const keys = linear("keys");
        const Linear* const query = linear("query");
        return &model_.poolings_.emplace_back(value.at("name").string(), value.at("width").integer(), keys,
                                              query);
    }

    void read_layers(const Tree& value) {
        if (ended_) fail("recurrent: must be before the end of sequences, got it behind");
        const std::string merge = value.has("merge") ? value.at("merge").string() : "concat";
        if (merge != "concat" && merge != "sum") fail("recurrent: merge must be concat or sum, got " + merge);
        std::vector<Block> layers;  // layer by layer, its directions side by side
        std::size_t directions = 0, count = 0;
        value.at("layers").items([&](const Tree& layer) {
            const std::size_t before = layers.size();
            layer.items([&](const Tree& direction) {
                layers.push_back(Block{});
                layers.back().layer = read_direction(direction);
            });
            const std::size_t size = layers.size() - before;
            if (count++ == 0) directions = size;
            if (size != directions || size < 1 || size > 2)
                fail("recurrent: layers must have one direction each, or two");
            for (std::size_t k = before; k < layers.size(); ++k) enter(layers[k].layer->inputs());
            const Index width = layers[before].layer->width(), reverse_width = layers.back().layer->width();
            if (merge == "sum" && width != reverse_width)
                fail("recurrent: directions must have one width with merge='sum'");
            width_ = size == 1 || merge == "sum" ? width : width + reverse_width;
        });
        if (count == 0) fail("recurrent: layers must not be empty");
        if (const Tree start = value.at("start"); !start.none()) read_start(start, layers);
        model_.both_directions_ |= directions == 2;
        layers_ = true;
        for (Block& layer : layers) model_.blocks_.push_back(std::move(layer));
    }

    const Layer* read_direction(const Tree& value) {
        std::vector<Index> sizes;  // I, H, P
        value.at("sizes").items([&sizes](const Tree& size) { sizes.push_back(size.integer()); });
        if (sizes.size() != 3) fail("recurrent: sizes must be three, I, H and P");
        model_.programs_.push_back(parse(value.at("program").string(), sizes[1], sizes[2], sizes[0]));
        const Program& program = model_.programs_.back();
        if (program.states[0] != sizes[2])
            fail("recurrent: sizes must end with " + std::to_string(program.states[0]) +
                 ", the width of the program's output, got " + std::to_string(sizes[2]));
        budget_.take(step_footprint(program), "program");
        std::vector<FloatView> arrays;
        value.at("arrays").items(
            [&](const Tree& item) { arrays.push_back(item.none() ? FloatView{} : numbers(item).floats); });
        return &model_.layers_.emplace_back(program, sizes[0], arrays, format_, "");
    }

    // Initial states: a row for each state of each layer.
    void read_start(const Tree& value, std::vector<Block>& layers) {
        std::size_t k = 0;
        value.items([&](const Tree& states) {
            if (k == layers.size()) fail("recurrent: start must have a row for each state of each layer");
            const std::vector<Index>& widths = layers[k].layer->program().states;
            std::vector<FloatView>& start = layers[k++].start;
            states.items([&](const Tree& state) {
                const Numbers row = numbers(state, 2);
                if (start.size() == widths.size() || row.shape[0] != 1 ||
                    row.shape[1] != widths[start.size()])
                    fail("recurrent: start must have a row for each state of each layer");
                start.push_back(row.floats);
            });
            if (start.size() != widths.size())
                fail("recurrent: start must have a row for each state of each layer");
        });
        if (k != layers.size()) fail("recurrent: start must have a row for each state of each layer");
    }

    // Each array belongs to one block, so that packed weights are no larger than the file.
    const Array& array(const Tree& value, const char* type) {
        const Array& result = value.array(type);
        if (!used_.insert(&result).second) fail("blocks: an array must belong to one block, got two");
        return result;
    }

    const Array& array(const Tree& value, const char* type, std::size_t dimensions) {
        const Array& result = array(value, type);
        check_dimensions(result, dimensions);
        return result;
    }

    static void check_dimensions(const Array& array, std::size_t dimensions) {
        if (array.shape.size() != dimensions)
            fail("blocks: an array must have " + std::to_string(dimensions) + " dimensions, got " +
                 std::to_string(array.shape.size()));
    }

    struct Numbers {
        FloatView floats;
        const std::vector<Index>& shape;
    };

    // An array of float with that number of dimensions (0: any), dequantized if the file has low precision.
    Numbers numbers(const Tree& value, std::size_t dimensions = 0) {
        const bool is_quantized = value.is_dict();
        const Array& source =
            is_quantized ? array(value.at("values"), quantized_type(value), 2) : array(value, "F32");
        if (dimensions > 0) check_dimensions(source, dimensions);
        const float* const floats =
            is_quantized ? dequantized(value, source) : static_cast<const float*>(source.numbers);
        return {{floats, source.count}, source.shape};
    }

    static const char* quantized_type(const Tree& value) {
        const std::string format = value.at("kept").string();
        if (format == "int8") return "I8";
        if (format == "bfloat16") return "U16";
        fail("weight: kept must be int8 or bfloat16, got " + format);
    }

    // To the bit as in runtime/_quantize.py.
    const float* dequantized(const Tree& value, const Array& values) {
        std::vector<float>& weights =
            model_.dequantized_.emplace_back(static_cast<std::size_t>(values.count));
        if (values.type == "U16") {
            const auto* const upper = static_cast<const std::uint16_t*>(values.numbers);
            for (std::size_t k = 0; k < weights.size(); ++k) {
                const std::uint32_t bits = static_cast<std::uint32_t>(upper[k]) << 16;
                std::memcpy(&weights[k], &bits, sizeof bits);
            }
            return weights.data();
        }
        const Array& scales = array(value.at("largest"), "F32", 1);
        const Index rows = values.shape[0], columns = values.shape[1];
        if (scales.count != rows) fail("weight: largest must be a number of at least 0 for each row");
        const auto* const largest = static_cast<const float*>(scales.numbers);
        const auto* const integer = static_cast<const signed char*>(values.numbers);
        for (Index row = 0; row < rows; ++row) {
            const float row_largest = largest[row], scale = row_largest / 127.0f;
            if (!(row_largest >= 0 && row_largest <= std::numeric_limits<float>::max()))
                fail("weight: largest must be a number of at least 0 for each row");
            for (Index k = row * columns; k < (row + 1) * columns; ++k) {
                const int q = integer[k];
                weights[static_cast<std::size_t>(k)] = q == 127    ? row_largest
                                                       : q == -127 ? -row_largest
                                                                   : static_cast<float>(q) * scale;
            }
        }
        return weights.data();
    }

    Model& model_;
    const std::string& weights_;
    WeightFormat format_ = WeightFormat::float32;
    Index width_ = 0;  // of the last block's output; 0: not known yet
    bool layers_ = false, ended_ = false;
    Previous previous_ = Previous::nothing;
    std::set<const Array*> used_;
    Budget budget_;
};

Model::Model(Safetensors file, const std::string& weights) : file_(std::move(file)) {
    description_ = file_.text("unrolled");
    if (!description_) fail("a safetensors file, but not one written by unrolled");
    try {
        const Json document(*description_);
        if (document.at("version").integer() != kTreeVersion)
            fail("version " + std::string(document.at("version").text()) + " of its structure");
        const Tree tree(document.at("tree"), file_);
        tree.check();
        ModelReader(*this, weights).read(tree);
    } catch (const std::invalid_argument& error) {
        const std::string fault = std::string(error.what()).substr(0, kMaxShown);
        fail("holds no model that this version reads (" + fault + ")");
    }
}

std::unique_ptr<Pipeline> Model::pipeline(Index N) const {
    if (both_directions_)
        fail(
            "Model: stream needs one direction, got two: the second begins at the end of a "
            "sequence, which has not come yet");
    return std::make_unique<Pipeline>(source_, blocks_, N, 1);
}

}  // namespace unrolled
