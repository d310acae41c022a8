// An exported model as it is read from its file: the parts of a chain, and what they borrow from.
#pragma once

#include <deque>
#include <string>

#include "model/streaming.h"
#include "model/safetensors.h"

namespace unrolled {

// Of version 1 or 2 of the description, as `unrolled.runtime.schema` has it, without words spelt
// by characters, forecasts and translators.
class Model {
public:
    // `weights`: how they are kept, by name; empty: as the file says. Throws std::invalid_argument
    // where the file holds no model that this version reads.
    Model(Safetensors file, const std::string& weights);
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    // N sequences, for no longer than the model. Throws std::invalid_argument where it reads in both
    // directions, or N is below 1.
    std::unique_ptr<Chain> chain(Index N) const;

    Index tokens() const { return source_.V; }  // rows of the embedding, 0 where it reads numbers
    Index inputs() const { return inputs_; }    // numbers of a row, 1 where it reads tokens
    Index outputs() const { return outputs_; }
    const std::string& description() const { return *description_; }  // JSON

private:
    friend class ModelReader;

    Safetensors file_;
    const std::string* description_ = nullptr;
    std::deque<std::vector<float>> widened_;  // weights that are short in the file
    std::deque<Program> programs_;
    std::deque<Layer> layers_;
    std::deque<Line> lines_;
    std::deque<Pooling> poolings_;
    Source source_;
    std::vector<Stage> stages_;
    Index inputs_ = 0, outputs_ = 0;
    bool both_directions_ = false;
};

}  // namespace unrolled
