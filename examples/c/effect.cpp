// A model as an audio effect, as in a plugin: blocks of frames in, blocks of values out.
// effect MODEL < frames > values: float32, as many per frame as the model reads and outputs.
#include <unrolled.h>

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

class Effect {
public:
    // Not on the audio thread: this reads a file and allocates memory.
    explicit Effect(const char* path) {
        char error[500];
        unrolled_model* model = unrolled_model_load(path, UNROLLED_AS_IN_FILE, error, sizeof error);
        if (!model) throw std::runtime_error(error);
        inputs_ = static_cast<std::size_t>(unrolled_model_inputs(model));
        outputs_ = static_cast<std::size_t>(unrolled_model_outputs(model));
        const bool numbers = unrolled_model_tokens(model) == 0;
        stream_ = numbers ? unrolled_stream_create(model, 1, error, sizeof error) : nullptr;
        unrolled_model_free(model);  // the stream keeps what it needs
        if (!stream_) throw std::runtime_error(numbers ? error : "a model that reads tokens");
    }
    Effect(const Effect&) = delete;
    Effect& operator=(const Effect&) = delete;
    ~Effect() { unrolled_stream_free(stream_); }

    // On the audio thread: no allocation, no locks.
    void process(const float* frames, std::size_t count, float* values) noexcept {
        for (std::size_t t = 0; t < count; ++t, frames += inputs_, values += outputs_)
            unrolled_stream_step(stream_, frames, values);
    }

    void begin_anew() noexcept { unrolled_stream_reset(stream_, nullptr, 0); }

    std::size_t inputs() const { return inputs_; }
    std::size_t outputs() const { return outputs_; }

private:
    unrolled_stream* stream_ = nullptr;
    std::size_t inputs_ = 0, outputs_ = 0;
};

int main(int count, char** words) try {
    if (count != 2) throw std::runtime_error("usage: effect MODEL < frames > values");
    const std::size_t block = 64;
    Effect effect(words[1]);
    std::vector<float> frames(block * effect.inputs()), values(block * effect.outputs());
    const std::size_t wide = sizeof(float);
    while (std::size_t some = std::fread(frames.data(), wide * effect.inputs(), block, stdin)) {
        effect.process(frames.data(), some, values.data());
        std::fwrite(values.data(), wide * effect.outputs(), some, stdout);
    }
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "effect: %s\n", error.what());
    return 1;
}
