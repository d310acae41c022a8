// The C interface: checks arguments, and lets no exception out.
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

using unrolled::Model;
using unrolled::Pipeline;
using unrolled::Safetensors;

struct unrolled_model {
    std::shared_ptr<const Model> model;
};

struct unrolled_stream {
    std::shared_ptr<const Model> model;  // the pipeline borrows from it
    std::unique_ptr<Pipeline> pipeline;
};

namespace {

void write_message(const char* what, char* error, std::size_t capacity) {
    if (!error || capacity == 0) return;
    const std::size_t count = std::min(std::strlen(what), capacity - 1);
    std::memcpy(error, what, count);
    error[count] = 0;
}

// The result of `make`; on an exception null, and its message.
template <class F>
auto catch_errors(char* error, std::size_t capacity, F make) noexcept -> decltype(make()) {
    const unrolled::MaskedFloatTraps masked;
    try {
        return make();
    } catch (const std::bad_alloc&) {
        write_message("not enough memory", error, capacity);
    } catch (const std::exception& fault) {
        write_message(fault.what(), error, capacity);
    } catch (...) {
        write_message("an unknown error", error, capacity);
    }
    return nullptr;
}

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

std::string name_of(unrolled_weights weights) {
    const char* const names[] = {"", "float32", "bfloat16", "int8"};
    const int number = weights;
    if (number < UNROLLED_AS_IN_FILE || number > UNROLLED_INT8)
        throw std::invalid_argument("weights must be from 0 to 3, got " + std::to_string(number));
    return names[number];
}

unrolled_model* model_of(Safetensors file, unrolled_weights weights) {
    return new unrolled_model{std::make_shared<const Model>(std::move(file), name_of(weights))};
}

// Calls `work` with the stream's pipeline, unless another thread uses it.
template <class F>
unrolled_status with_exclusive_use(unrolled_stream* stream, F work) noexcept {
    if (!stream) return UNROLLED_ARGUMENT;
    const Pipeline::ExclusiveUse turn(*stream->pipeline);
    return turn ? work(*stream->pipeline) : UNROLLED_BUSY;
}

bool has_state(const Pipeline& pipeline, std::int64_t k) {
    return k >= 0 && k < static_cast<std::int64_t>(pipeline.states());
}

}  // namespace

const char* unrolled_message(unrolled_status status) {
    switch (status) {
    case UNROLLED_OK: return "success";
    case UNROLLED_BUSY: return "another thread uses the stream; give each thread its own copy";
    case UNROLLED_ARGUMENT: return "a pointer is null, or a state or row does not exist";
    case UNROLLED_KIND: return "the model reads tokens and got numbers, or reads numbers and got tokens";
    case UNROLLED_TOKEN: return "a token must be from 0 to V - 1";
    }
    return "unknown status";
}

unrolled_model* unrolled_model_load(const char* path, unrolled_weights weights, char* error,
                                    std::size_t capacity) {
    return catch_errors(error, capacity, [&] {
        require(path, "path must not be null");
        try {
            return model_of(Safetensors::of_path(path), weights);
        } catch (const std::invalid_argument& fault) {
            throw std::invalid_argument(std::string(path) + ": " + fault.what());
        }
    });
}

unrolled_model* unrolled_model_read(const void* bytes, std::size_t count, unrolled_weights weights,
                                    char* error, std::size_t capacity) {
    return catch_errors(error, capacity, [&] {
        require(bytes, "bytes must not be null");
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
                                        std::size_t capacity) {
    return catch_errors(error, capacity, [&] {
        require(model, "model must not be null");
        return new unrolled_stream{model->model, model->model->pipeline(N)};
    });
}

unrolled_stream* unrolled_stream_copy(unrolled_stream* stream, char* error, std::size_t capacity) {
    return catch_errors(error, capacity, [&] {
        require(stream, "stream must not be null");
        const Pipeline::ExclusiveUse turn(*stream->pipeline);
        require(static_cast<bool>(turn), unrolled_message(UNROLLED_BUSY));
        auto pipeline = stream->model->pipeline(stream->pipeline->batch());
        pipeline->copy_states_from(*stream->pipeline);
        return new unrolled_stream{stream->model, std::move(pipeline)};
    });
}

void unrolled_stream_free(unrolled_stream* stream) { delete stream; }

std::int64_t unrolled_stream_batch(const unrolled_stream* stream) { return stream->pipeline->batch(); }

unrolled_status unrolled_stream_step(unrolled_stream* stream, const float* x, float* out) {
    return with_exclusive_use(stream, [x, out](Pipeline& pipeline) {
        if (!x || !out) return UNROLLED_ARGUMENT;
        if (pipeline.reads_tokens()) return UNROLLED_KIND;
        pipeline.step(x, out);
        return UNROLLED_OK;
    });
}

unrolled_status unrolled_stream_step_tokens(unrolled_stream* stream, const std::int64_t* tokens, float* out) {
    return with_exclusive_use(stream, [tokens, out](Pipeline& pipeline) {
        if (!tokens || !out) return UNROLLED_ARGUMENT;
        if (!pipeline.reads_tokens()) return UNROLLED_KIND;
        if (pipeline.first_invalid_token(tokens) >= 0) return UNROLLED_TOKEN;
        pipeline.step(tokens, out);
        return UNROLLED_OK;
    });
}

std::int64_t unrolled_stream_states(const unrolled_stream* stream) {
    return static_cast<std::int64_t>(stream->pipeline->states());
}

std::int64_t unrolled_stream_state_width(const unrolled_stream* stream, std::int64_t k) {
    const Pipeline& pipeline = *stream->pipeline;
    return has_state(pipeline, k) ? pipeline.state_width(static_cast<std::size_t>(k)) : 0;
}

unrolled_status unrolled_stream_get_state(unrolled_stream* stream, std::int64_t k, float* to) {
    return with_exclusive_use(stream, [k, to](Pipeline& pipeline) {
        if (!to || !has_state(pipeline, k)) return UNROLLED_ARGUMENT;
        pipeline.read_state(static_cast<std::size_t>(k), to);
        return UNROLLED_OK;
    });
}

unrolled_status unrolled_stream_set_state(unrolled_stream* stream, std::int64_t k, const float* from) {
    return with_exclusive_use(stream, [k, from](Pipeline& pipeline) {
        if (!from || !has_state(pipeline, k)) return UNROLLED_ARGUMENT;
        pipeline.write_state(static_cast<std::size_t>(k), from);
        return UNROLLED_OK;
    });
}

unrolled_status unrolled_stream_reset(unrolled_stream* stream, const std::int64_t* rows, std::int64_t count) {
    return with_exclusive_use(stream, [rows, count](Pipeline& pipeline) {
        const std::int64_t N = pipeline.batch();
        if (rows && count < 0) return UNROLLED_ARGUMENT;
        for (std::int64_t k = 0; rows && k < count; ++k)
            if (rows[k] < 0 || rows[k] >= N) return UNROLLED_ARGUMENT;
        for (std::int64_t k = 0; k < (rows ? count : N); ++k) pipeline.reset(rows ? rows[k] : k);
        return UNROLLED_OK;
    });
}

unrolled_status unrolled_stream_assign(unrolled_stream* to, unrolled_stream* from) {
    if (!to || !from || to->model != from->model || to->pipeline->batch() != from->pipeline->batch())
        return UNROLLED_ARGUMENT;
    if (to == from) return UNROLLED_OK;
    return with_exclusive_use(from, [to](Pipeline& source) {
        return with_exclusive_use(to, [&source](Pipeline& pipeline) {
            pipeline.copy_states_from(source);
            return UNROLLED_OK;
        });
    });
}
