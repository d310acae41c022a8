// An exported model, read from its file: its blocks, and the arrays that they borrow.
#pragma once

#include <deque>
#include <string>

#include "model/safetensors.h"
#include "model/streaming.h"

namespace unrolled {

// A file of version 1 to 3 of the schema (src/unrolled/runtime/_schema.py). Word blocks, forecasts and
// translators are not supported.
class Model {
public:
    // `weights`: their format by name; empty: that of the file. Throws std::invalid_argument if this
    // version cannot read the file.
    Model(Safetensors file, const std::string& weights);
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    // For N sequences; the model must outlive it. Throws std::invalid_argument if the model has two
    // directions, or N is below 1.
    std::unique_ptr<Pipeline> pipeline(Index N) const;

    Index tokens() const { return source_.V; }  // rows of the embedding; 0: reads numbers
    Index inputs() const { return inputs_; }    // numbers of a row; 1: reads tokens
    Index outputs() const { return outputs_; }
    const std::string& description() const { return *description_; }  // JSON

private:
    friend class ModelReader;

    Safetensors file_;
    const std::string* description_ = nullptr;
    std::deque<std::vector<float>> dequantized_;  // weights that have low precision in the file
    std::deque<Program> programs_;
    std::deque<Layer> layers_;
    std::deque<Linear> linears_;
    std::deque<Pooling> poolings_;
    Source source_;
    std::vector<Block> blocks_;
    Index inputs_ = 0, outputs_ = 0;
    bool both_directions_ = false;
};

}  // namespace unrolled
