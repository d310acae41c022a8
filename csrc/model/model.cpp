// From the tree that a file holds to the parts of a chain; nothing of it is trusted.
#include "model/model.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <stdexcept>
#include <utility>

#include "support/sizes.h"
#include "model/tree.h"

namespace unrolled {
namespace {

constexpr Index kTreeVersion = 1, kVersion = 2;  // as io.py and runtime/schema.py have them
constexpr std::size_t kShown = 1000;             // characters of a fault

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument(what); }

}  // namespace

// Follows the blocks of a description, and holds each to the width of what the one before makes.
class ModelReader {
public:
    ModelReader(Model& model, const std::string& weights)
        : model_(model), weights_(weights), budget_(model.file_.size()) {}

    void read(const Tree& tree) {
        if (tree.at("kind").string() != "unrolled model") fail("kind: wanted an exported model");
        const Index version = tree.at("version").whole();
        if (version < 1 || version > kVersion)
            fail("version " + std::to_string(version) + ", this library reads " +
                 std::to_string(kVersion));
        kept_ = kept_of(weights_.empty() ? tree.at("weights").string() : weights_);
        if (const Tree task = tree.at("task"); !task.none()) task.string();
        tree.at("codec");
        if (tree.has("batch_first") && !tree.at("batch_first").is_boolean())
            fail("batch_first: wanted a boolean");
        if (tree.has("encoder")) fail("translators are not in the C interface");
        tree.at("blocks").items([this](const Tree& block) {
            read_block(block);
            budget_.take(width_, "blocks");
        });
        if (!layers_) fail("blocks: wanted a layer among them");
        Source& source = model_.source_;
        model_.inputs_ = source.table ? 1 : source.width;
        model_.outputs_ = width_;
    }

private:
    enum class Before { nothing, layer, other };

    void read_block(const Tree& told) {
        const std::string name = told.at("block").string();
        const bool first = before_ == Before::nothing, behind_layer = before_ == Before::layer;
        before_ = name == "recurrent" ? Before::layer : Before::other;
        if ((name == "embedding" || name == "scale") && !first)
            fail("blocks: " + name + " is not the first one");
        if ((name == "last" || name == "pooling") && !behind_layer)
            fail("blocks: the end of sequences not behind a layer");
        if (name == "words" || name == "forecast") fail(name + ": not in the C interface");
        if (name == "embedding") return read_embedding(told);
        if (name == "scale") return read_scale(told);
        if (name == "recurrent") return read_layers(told);
        ended_ = ended_ || name == "last" || name == "pooling";
        if (name == "last") return;
        Stage stage;
        if (name == "linear") {
            stage.line = read_line(told);
            enter(stage.line->source);
            width_ = stage.line->width;
        } else if (name == "pooling") {
            stage.pooling = read_pooling(told);
            enter(stage.pooling->width);
        } else {
            stage.activation = activation_of(name);
        }
        model_.stages_.push_back(std::move(stage));
    }

    // The next part reads so many numbers.
    void enter(Index reads) {
        if (reads < 1) fail("blocks: a part that reads nothing");
        if (width_ == 0) model_.source_.width = reads;
        else if (width_ != reads)
            fail("blocks: a part reads " + std::to_string(reads) + " numbers, gets " +
                 std::to_string(width_));
        width_ = reads;
    }

    void read_embedding(const Tree& told) {
        const Numbers table = numbers(told.at("weight"), 2);
        if (table.floats.count == 0) fail("embedding: no numbers");
        model_.source_.V = table.shape[0];
        model_.source_.table = table.floats.numbers;
        enter(table.shape[1]);
    }

    void read_scale(const Tree& told) {
        const Array& mean = array(told.at("mean"), "F64", 1);
        const Array& deviation = array(told.at("deviation"), "F64", 1);
        if (mean.count != deviation.count) fail("blocks: mean and deviation of different lengths");
        model_.source_.mean = static_cast<const double*>(mean.numbers);
        model_.source_.deviation = static_cast<const double*>(deviation.numbers);
        enter(mean.count);
    }

    const Line* read_line(const Tree& told) {
        const Numbers weight = numbers(told.at("weight"), 2);
        const Tree bias = told.at("bias");
        return &model_.lines_.emplace_back(weight.floats,
                                           bias.none() ? Floats{} : numbers(bias, 1).floats,
                                           weight.shape[0], weight.shape[1], kept_, "");
    }

    const Pooling* read_pooling(const Tree& told) {
        const auto line = [&](const char* name) {
            const Tree found = told.at(name);
            if (found.none()) return static_cast<const Line*>(nullptr);
            if (found.at("block").string() != "linear")
                fail("pooling: keys and query are no linear layers");
            return read_line(found);
        };
        const Line* const keys = line("keys");
        const Line* const query = line("query");
        return &model_.poolings_.emplace_back(told.at("name").string(), told.at("width").whole(),
                                              keys, query);
    }

    void read_layers(const Tree& told) {
        if (ended_) fail("blocks: a layer behind the end of sequences");
        const std::string merge = told.has("merge") ? told.at("merge").string() : "concat";
        if (merge != "concat" && merge != "sum") fail("merge: wanted concat or sum, got " + merge);
        std::vector<Stage> layers;  // a layer's directions one after the other
        std::size_t directions = 0, count = 0;
        told.at("layers").items([&](const Tree& layer) {
            const std::size_t before = layers.size();
            layer.items([&](const Tree& direction) {
                layers.push_back(Stage{});
                layers.back().layer = read_direction(direction);
            });
            const std::size_t found = layers.size() - before;
            if (count++ == 0) directions = found;
            if (found != directions || found < 1 || found > 2)
                fail("layers: wanted one direction, or two, in each");
            for (std::size_t k = before; k < layers.size(); ++k) enter(layers[k].layer->inputs());
            const Index one = layers[before].layer->width(), last = layers.back().layer->width();
            if (merge == "sum" && one != last) fail("merge: wanted directions of one width");
            width_ = found == 1 || merge == "sum" ? one : one + last;
        });
        if (count == 0) fail("layers: none");
        if (const Tree start = told.at("start"); !start.none()) read_start(start, layers);
        model_.both_directions_ |= directions == 2;
        layers_ = true;
        for (Stage& layer : layers) model_.stages_.push_back(std::move(layer));
    }

    const Layer* read_direction(const Tree& told) {
        std::vector<Index> sizes;  // I, H, P
        told.at("sizes").items([&sizes](const Tree& size) { sizes.push_back(size.whole()); });
        if (sizes.size() != 3) fail("sizes: wanted three");
        model_.programs_.push_back(parse(told.at("program").string(), sizes[1], sizes[2], sizes[0]));
        const Program& program = model_.programs_.back();
        if (program.states[0] != sizes[2])
            fail("sizes: the program's output has " + std::to_string(program.states[0]) +
                 " units, not " + std::to_string(sizes[2]));
        budget_.take(room_of(program), "program");
        std::vector<Floats> arrays;
        told.at("arrays").items([&](const Tree& one) {
            arrays.push_back(one.none() ? Floats{} : numbers(one).floats);
        });
        return &model_.layers_.emplace_back(program, sizes[0], arrays, kept_, "");
    }

    // A row for each state of each layer.
    void read_start(const Tree& told, std::vector<Stage>& layers) {
        std::size_t k = 0;
        told.items([&](const Tree& states) {
            if (k == layers.size()) fail("start: wanted a row for each state of each layer");
            const std::vector<Index>& widths = layers[k].layer->program().states;
            std::vector<Floats>& start = layers[k++].start;
            states.items([&](const Tree& state) {
                const Numbers found = numbers(state, 2);
                if (start.size() == widths.size() || found.shape[0] != 1 ||
                    found.shape[1] != widths[start.size()])
                    fail("start: wanted a row for each state of each layer");
                start.push_back(found.floats);
            });
            if (start.size() != widths.size()) fail("start: wanted a row for each state");
        });
        if (k != layers.size()) fail("start: wanted a row for each state of each layer");
    }

    // Each array is one part's: what is packed is no larger than the file.
    const Array& array(const Tree& told, const char* type) {
        const Array& found = told.array(type);
        if (!used_.insert(&found).second) fail("an array that two parts have");
        return found;
    }

    const Array& array(const Tree& told, const char* type, std::size_t dimensions) {
        const Array& found = array(told, type);
        check_dimensions(found, dimensions);
        return found;
    }

    static void check_dimensions(const Array& array, std::size_t wanted) {
        if (array.shape.size() != wanted)
            fail("an array of " + std::to_string(array.shape.size()) + " dimensions, wanted " +
                 std::to_string(wanted));
    }

    struct Numbers {
        Floats floats;
        const std::vector<Index>& shape;
    };

    // Numbers in float, of so many dimensions (0: any), that may be short in the file.
    Numbers numbers(const Tree& told, std::size_t dimensions = 0) {
        const bool is_short = told.is_dict();
        const Array& found = is_short ? array(told.at("values"), short_type(told), 2)
                                      : array(told, "F32");
        if (dimensions > 0) check_dimensions(found, dimensions);
        const float* const floats =
            is_short ? widened(told, found) : static_cast<const float*>(found.numbers);
        return {{floats, found.count}, found.shape};
    }

    static const char* short_type(const Tree& told) {
        const std::string kept = told.at("kept").string();
        if (kept == "int8") return "I8";
        if (kept == "bfloat16") return "U16";
        fail("weight: kept as " + kept + ", wanted int8 or bfloat16");
    }

    // As runtime/quantize.py has it, to the bit.
    const float* widened(const Tree& told, const Array& values) {
        std::vector<float>& made =
            model_.widened_.emplace_back(static_cast<std::size_t>(values.count));
        if (values.type == "U16") {
            const auto* const upper = static_cast<const std::uint16_t*>(values.numbers);
            for (std::size_t k = 0; k < made.size(); ++k) {
                const std::uint32_t bits = static_cast<std::uint32_t>(upper[k]) << 16;
                std::memcpy(&made[k], &bits, sizeof bits);
            }
            return made.data();
        }
        const Array& found = array(told.at("largest"), "F32", 1);
        const Index rows = values.shape[0], columns = values.shape[1];
        if (found.count != rows) fail("weight: wanted the largest of each row, 0 or above");
        const auto* const largest = static_cast<const float*>(found.numbers);
        const auto* const whole = static_cast<const signed char*>(values.numbers);
        for (Index row = 0; row < rows; ++row) {
            const float most = largest[row], scale = most / 127.0f;
            if (!(most >= 0 && most <= std::numeric_limits<float>::max()))
                fail("weight: wanted the largest of each row, 0 or above");
            for (Index k = row * columns; k < (row + 1) * columns; ++k) {
                const int q = whole[k];
                made[static_cast<std::size_t>(k)] =
                    q == 127 ? most : q == -127 ? -most : static_cast<float>(q) * scale;
            }
        }
        return made.data();
    }

    Model& model_;
    const std::string& weights_;
    Kept kept_ = Kept::own;
    Index width_ = 0;  // of what the parts so far make; 0: not known yet
    bool layers_ = false, ended_ = false;
    Before before_ = Before::nothing;
    std::set<const Array*> used_;
    Budget budget_;
};

Model::Model(Safetensors file, const std::string& weights) : file_(std::move(file)) {
    description_ = file_.text("unrolled");
    if (!description_) fail("a safetensors file, but not one written by unrolled");
    try {
        const Json document(*description_);
        if (document.at("version").whole() != kTreeVersion)
            fail("version " + std::string(document.at("version").text()) + " of its structure");
        const Tree tree(document.at("tree"), file_);
        tree.check();
        ModelReader(*this, weights).read(tree);
    } catch (const std::invalid_argument& error) {
        const std::string fault = std::string(error.what()).substr(0, kShown);
        fail("holds no model that this version reads (" + fault + ")");
    }
}

std::unique_ptr<Chain> Model::chain(Index N) const {
    if (both_directions_)
        fail("stream: wanted a model of one direction, got two: the second begins at the end of a "
             "sequence, which is not there yet");
    return std::make_unique<Chain>(source_, stages_, N, 1);
}

}  // namespace unrolled
