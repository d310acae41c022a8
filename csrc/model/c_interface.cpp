// The C interface: arguments are looked at, and no exception gets through.
#include "unrolled.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "dispatch/builds.h"
#include "model/model.h"

using unrolled::Chain;
using unrolled::Model;
using unrolled::Safetensors;

struct unrolled_model {
    std::shared_ptr<const Model> model;
};

struct unrolled_stream {
    std::shared_ptr<const Model> model;  // of which the chain borrows
    std::unique_ptr<Chain> chain;
};

namespace {

void tell(const char* what, char* error, std::size_t room) {
    if (!error || room == 0) return;
    const std::size_t count = std::min(std::strlen(what), room - 1);
    std::memcpy(error, what, count);
    error[count] = 0;
}

// What `make` gives, or null and why there is nothing.
template <class F>
auto attempt(char* error, std::size_t room, F make) noexcept -> decltype(make()) {
    const unrolled::Masked masked;
    try {
        return make();
    } catch (const std::bad_alloc&) {
        tell("there is not enough memory", error, room);
    } catch (const std::exception& fault) {
        tell(fault.what(), error, room);
    } catch (...) {
        tell("an unknown error", error, room);
    }
    return nullptr;
}

void need(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

std::string name_of(unrolled_weights weights) {
    const char* const names[] = {"", "float32", "bfloat16", "int8"};
    const int number = weights;
    if (number < UNROLLED_AS_IN_FILE || number > UNROLLED_INT8)
        throw std::invalid_argument("weights: wanted 0 to 3, got " + std::to_string(number));
    return names[number];
}

unrolled_model* model_of(Safetensors file, unrolled_weights weights) {
    return new unrolled_model{std::make_shared<const Model>(std::move(file), name_of(weights))};
}

// Calls `work` with the stream's chain, if no other thread is in it.
template <class F>
unrolled_status in_turn(unrolled_stream* stream, F work) noexcept {
    if (!stream) return UNROLLED_ARGUMENT;
    const Chain::Turn turn(*stream->chain);
    return turn ? work(*stream->chain) : UNROLLED_BUSY;
}

bool has_state(const Chain& chain, std::int64_t k) {
    return k >= 0 && k < static_cast<std::int64_t>(chain.states());
}

}  // namespace

const char* unrolled_message(unrolled_status status) {
    switch (status) {
    case UNROLLED_OK: return "done";
    case UNROLLED_BUSY: return "another thread is in the stream; each may have its own copy";
    case UNROLLED_ARGUMENT: return "a null pointer, or a number of a state or row that is not there";
    case UNROLLED_KIND: return "numbers for a model that reads tokens, or tokens for one of numbers";
    case UNROLLED_TOKEN: return "a token that the model has not";
    }
    return "no status of this library";
}

unrolled_model* unrolled_model_load(const char* path, unrolled_weights weights, char* error,
                                    std::size_t room) {
    return attempt(error, room, [&] {
        need(path, "path: null");
        try {
            return model_of(Safetensors::of_path(path), weights);
        } catch (const std::invalid_argument& fault) {
            throw std::invalid_argument(std::string(path) + ": " + fault.what());
        }
    });
}

unrolled_model* unrolled_model_read(const void* bytes, std::size_t count, unrolled_weights weights,
                                    char* error, std::size_t room) {
    return attempt(error, room, [&] {
        need(bytes, "bytes: null");
        return model_of(Safetensors::of_memory(bytes, count), weights);
    });
}

void unrolled_model_free(unrolled_model* model) { delete model; }

std::int64_t unrolled_model_tokens(const unrolled_model* model) { return model->model->tokens(); }

std::int64_t unrolled_model_inputs(const unrolled_model* model) { return model->model->inputs(); }

std::int64_t unrolled_model_outputs(const unrolled_model* model) { return model->model->outputs(); }

const char* unrolled_model_description(const unrolled_model* model) {
    return model->model->description().c_str();
}

unrolled_stream* unrolled_stream_create(const unrolled_model* model, std::int64_t N, char* error,
                                        std::size_t room) {
    return attempt(error, room, [&] {
        need(model, "model: null");
        return new unrolled_stream{model->model, model->model->chain(N)};
    });
}

unrolled_stream* unrolled_stream_copy(unrolled_stream* stream, char* error, std::size_t room) {
    return attempt(error, room, [&] {
        need(stream, "stream: null");
        const Chain::Turn turn(*stream->chain);
        need(static_cast<bool>(turn), unrolled_message(UNROLLED_BUSY));
        auto chain = stream->model->chain(stream->chain->batch());
        chain->take(*stream->chain);
        return new unrolled_stream{stream->model, std::move(chain)};
    });
}

void unrolled_stream_free(unrolled_stream* stream) { delete stream; }

std::int64_t unrolled_stream_batch(const unrolled_stream* stream) { return stream->chain->batch(); }

unrolled_status unrolled_stream_step(unrolled_stream* stream, const float* x, float* out) {
    return in_turn(stream, [x, out](Chain& chain) {
        if (!x || !out) return UNROLLED_ARGUMENT;
        if (chain.reads_tokens()) return UNROLLED_KIND;
        chain.step(x, out);
        return UNROLLED_OK;
    });
}

unrolled_status unrolled_stream_step_tokens(unrolled_stream* stream, const std::int64_t* tokens,
                                            float* out) {
    return in_turn(stream, [tokens, out](Chain& chain) {
        if (!tokens || !out) return UNROLLED_ARGUMENT;
        if (!chain.reads_tokens()) return UNROLLED_KIND;
        if (chain.outside(tokens) >= 0) return UNROLLED_TOKEN;
        chain.step(tokens, out);
        return UNROLLED_OK;
    });
}

std::int64_t unrolled_stream_states(const unrolled_stream* stream) {
    return static_cast<std::int64_t>(stream->chain->states());
}

std::int64_t unrolled_stream_state_width(const unrolled_stream* stream, std::int64_t k) {
    const Chain& chain = *stream->chain;
    return has_state(chain, k) ? chain.state_width(static_cast<std::size_t>(k)) : 0;
}

unrolled_status unrolled_stream_get_state(unrolled_stream* stream, std::int64_t k, float* to) {
    return in_turn(stream, [k, to](Chain& chain) {
        if (!to || !has_state(chain, k)) return UNROLLED_ARGUMENT;
        chain.read_state(static_cast<std::size_t>(k), to);
        return UNROLLED_OK;
    });
}

unrolled_status unrolled_stream_set_state(unrolled_stream* stream, std::int64_t k,
                                          const float* from) {
    return in_turn(stream, [k, from](Chain& chain) {
        if (!from || !has_state(chain, k)) return UNROLLED_ARGUMENT;
        chain.write_state(static_cast<std::size_t>(k), from);
        return UNROLLED_OK;
    });
}

unrolled_status unrolled_stream_reset(unrolled_stream* stream, const std::int64_t* rows,
                                      std::int64_t count) {
    return in_turn(stream, [rows, count](Chain& chain) {
        const std::int64_t N = chain.batch();
        if (rows && count < 0) return UNROLLED_ARGUMENT;
        for (std::int64_t k = 0; rows && k < count; ++k)
            if (rows[k] < 0 || rows[k] >= N) return UNROLLED_ARGUMENT;
        for (std::int64_t k = 0; k < (rows ? count : N); ++k) chain.reset(rows ? rows[k] : k);
        return UNROLLED_OK;
    });
}

unrolled_status unrolled_stream_assign(unrolled_stream* to, unrolled_stream* from) {
    if (!to || !from || to->model != from->model || to->chain->batch() != from->chain->batch())
        return UNROLLED_ARGUMENT;
    if (to == from) return UNROLLED_OK;
    return in_turn(from, [to](Chain& source) {
        return in_turn(to, [&source](Chain& chain) {
            chain.take(source);
            return UNROLLED_OK;
        });
    });
}
