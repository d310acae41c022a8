// Exported files through the C interface. Intact files step; cut, damaged or invented ones raise an error
// with a message, or step like any other.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "suite.h"
#include "unrolled.h"

namespace core_test {
namespace {

struct FreeModel {
    void operator()(unrolled_model* model) const { unrolled_model_free(model); }
};
struct FreeStream {
    void operator()(unrolled_stream* stream) const { unrolled_stream_free(stream); }
};
using ModelOwner = std::unique_ptr<unrolled_model, FreeModel>;
using StreamOwner = std::unique_ptr<unrolled_stream, FreeStream>;

// The parts of a file, so that the length of its header may change.
struct Parts {
    std::string header, data;

    std::string bytes() const {
        std::string result;
        for (std::size_t k = 0; k < 8; ++k) result += static_cast<char>(header.size() >> 8 * k & 0xff);
        return result + header + data;
    }
};

Parts parts_of(const std::string& bytes) {
    std::size_t length = 0;
    for (std::size_t k = 8; k-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[k]);
    return {bytes.substr(8, length), bytes.substr(8 + length)};
}

// The bytes have a memory block of their own, so that the sanitizer checks its end.
ModelOwner read(const std::string& bytes, std::string& error) {
    const std::vector<char> block(bytes.begin(), bytes.end());
    char text[400] = "";
    ModelOwner model(unrolled_model_read(block.data() ? block.data() : text, block.size(),
                                         UNROLLED_AS_IN_FILE, text, sizeof text));
    error = text;
    return model;
}

bool refused(const std::string& bytes) {
    std::string error;
    return !read(bytes, error) && !error.empty();
}

// Steps two sequences and uses all functions of a stream; false: the model cannot stream.
bool use(const unrolled_model* model, Checks& checks, const std::string& label) {
    char error[400] = "";
    const StreamOwner stream(unrolled_stream_create(model, 2, error, sizeof error));
    if (!stream) {
        checks.that(*error, label + ": no stream, and no reason");
        return false;
    }
    const auto numbers = [](Index count) {
        return std::vector<float>(static_cast<std::size_t>(2 * count), 0.5f);
    };
    const std::vector<float> x = numbers(unrolled_model_inputs(model));
    std::vector<float> out = numbers(unrolled_model_outputs(model)), reference_out = out;
    const std::int64_t tokens[2] = {0, unrolled_model_tokens(model) - 1}, none[2] = {0, tokens[1] + 1};
    const bool reads_tokens = tokens[1] >= 0;
    const auto step = [&](unrolled_stream* one, std::vector<float>& to) {
        return reads_tokens ? unrolled_stream_step_tokens(one, tokens, to.data())
                            : unrolled_stream_step(one, x.data(), to.data());
    };
    for (int t = 0; t < 3; ++t) checks.that(step(stream.get(), out) == UNROLLED_OK, label + ": a step");
    checks.that(reads_tokens
                    ? unrolled_stream_step(stream.get(), x.data(), out.data()) == UNROLLED_KIND &&
                          unrolled_stream_step_tokens(stream.get(), none, out.data()) == UNROLLED_TOKEN
                    : unrolled_stream_step_tokens(stream.get(), tokens, out.data()) == UNROLLED_KIND,
                label + ": the wrong kind of input");
    const StreamOwner copy(unrolled_stream_copy(stream.get(), error, sizeof error));
    for (Index k = 0; k < unrolled_stream_states(stream.get()); ++k) {
        std::vector<float> state = numbers(unrolled_stream_state_width(stream.get(), k));
        checks.that(unrolled_stream_get_state(stream.get(), k, state.data()) == UNROLLED_OK &&
                        unrolled_stream_set_state(stream.get(), k, state.data()) == UNROLLED_OK,
                    label + ": a state");
    }
    step(stream.get(), out);
    step(copy.get(), reference_out);
    checks.that(!std::memcmp(out.data(), reference_out.data(), out.size() * sizeof(float)),
                label + ": a copy has other numbers");
    const std::int64_t row = 1, beyond = 2;
    checks.that(unrolled_stream_reset(stream.get(), &row, 1) == UNROLLED_OK &&
                    unrolled_stream_reset(stream.get(), &beyond, 1) == UNROLLED_ARGUMENT &&
                    unrolled_stream_reset(stream.get(), &row, -1) == UNROLLED_ARGUMENT &&
                    unrolled_stream_assign(copy.get(), stream.get()) == UNROLLED_OK,
                label + ": a reset");
    return true;
}

struct Change {
    const char* from;
    const char* to;
};

// Of tests/golden/v1-tokens.safetensors: an embedding, a GRU with initial states, a linear layer.
const Change kFaults[] = {
    {R"(\"kind\": \"unrolled model\")", R"(\"kind\": \"unrolled recipe\")"},
    {R"(\"kind\": \"unrolled model\", )", ""},
    {R"(\"kind\": )", R"(\"kind\": \"unrolled model\", \"kind\": )"},
    {R"({\"version\": 1, \"tree\")", R"({\"version\": 2, \"tree\")"},
    {R"(\"version\": 1, \"weights\")", R"(\"version\": 4, \"weights\")"},
    {R"(\"version\": 1, \"weights\")", R"(\"version\": 1.5, \"weights\")"},
    {R"(\"version\": 1, \"weights\")", R"(\"version\": \"1\", \"weights\")"},
    {R"(\"weights\": \"float32\")", R"(\"weights\": \"float16\")"},
    {R"(\"weights\": \"float32\")", R"(\"weights\": null)"},
    {R"(\"task\": null, )", ""},
    {R"(\"task\": null, )", R"(\"task\": 3, )"},
    {R"(\"codec\": null, )", ""},
    {R"(\"codec\": null)", R"(\"codec\": {})"},
    {R"(\"codec\": null)", R"(\"codec\": {\"what\": 1})"},
    {R"(\"codec\": null)", R"(\"codec\": {\"float\": \"1,5\"})"},
    {R"(\"codec\": null)", R"(\"codec\": {\"items\": [[1]]})"},
    {R"(\"codec\": null)", R"(\"codec\": {\"tuple\": 1})"},
    {R"(\"codec\": null)", R"(\"codec\": {\"array\": \"none\"})"},
    {R"(\"codec\": null)", R"(\"codec\": {\"dict\": {}, \"tuple\": []})"},
    {R"(\"codec\": null)", R"(\"codec\": NaN)"},
    {R"(\"codec\": null)", R"(\"codec\": null, \"batch_first\": 1)"},
    {R"(\"start\": [)", R"(\"merge\": \"mean\", \"start\": [)"},
    {R"({\"array\": \"blocks.2.weight\"})",
     R"({\"dict\": {\"kept\": \"int8\", \"values\": {\"array\": \"blocks.2.weight\"}}})"},
    {R"(\"block\": \"linear\")", R"(\"block\": \"attention\")"},
    {R"(\"block\": \"linear\")", R"(\"block\": \"embedding\")"},
    {R"(\"block\": \"embedding\")", R"(\"block\": \"scale\")"},
    {R"(\"block\": \"embedding\")", R"(\"block\": \"pooling\")"},
    {R"(\"block\": \"embedding\")", R"(\"block\": \"last\")"},
    {R"(\"blocks\": [)", R"(\"blocks\": [{\"dict\": {\"block\": \"tanh\"}}, )"},
    {R"(\"blocks\": [)", R"(\"blocks\": [], \"more\": [)"},
    {R"({\"tuple\": [2, 4, 4]})", R"([2, 4])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([2, 4, 4, 4])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([3, 4, 4])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([2, 4, 5])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([2, 5, 5])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([-2, 4, 4])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([0, 4, 4])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([2, 4.0, 4])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([2, 16777216, 16777216])"},
    {R"({\"tuple\": [2, 4, 4]})", R"([999999999999999, 4, 4])"},
    {R"({\"array\": \"blocks.1.layers.0.0.arrays.0\"})", R"(null)"},
    {R"({\"array\": \"blocks.1.layers.0.0.arrays.0\"})", R"({\"array\": \"blocks.9\"})"},
    {R"({\"array\": \"blocks.1.layers.0.0.arrays.1\"})", R"({\"array\": \"blocks.1.layers.0.0.arrays.3\"})"},
    {R"({\"array\": \"blocks.1.layers.0.0.arrays.1\"}, )", ""},
    {R"({\"array\": \"blocks.1.layers.0.0.arrays.1\"})", R"({\"array\": \"blocks.2.weight\"})"},
    {R"({\"array\": \"blocks.2.weight\"})", R"({\"array\": \"blocks.2.bias\"})"},
    {R"({\"array\": \"blocks.2.weight\"})", R"(null)"},
    {R"(\"start\": [)", R"(\"start\": [], \"more\": [)"},
    {R"({\"tuple\": [{\"array\": \"blocks.1.start.0.0\"}]})", R"({\"tuple\": []})"},
    {R"({\"array\": \"blocks.1.start.0.0\"})", R"({\"array\": \"blocks.2.weight\"})"},
    {R"(unrolled-program 1)", R"(unrolled-program 3)"},
    {R"(node tnh H 12)", R"(node tnh H 99)"},
    {R"("F32")", R"("F16")"},
    {R"("F32")", R"("F33")"},
    {R"("F32")", R"("I32")"},
    {R"("shape":[5,2])", R"("shape":[5,3])"},
    {R"("shape":[5,2])", R"("shape":[10])"},
    {R"("shape":[5,2])", R"("shape":[-5,-2])"},
    {R"("shape":[5,2])", R"("shape":[5,2,999999999999999,999999999999999])"},
    {R"("shape":[5,2])", R"("shape":[5e0,2])"},
    {R"("data_offsets":[0,40])", R"("data_offsets":[4,44])"},
    {R"("data_offsets":[0,40])", R"("data_offsets":[0,44])"},
    {R"("data_offsets":[0,40])", R"("data_offsets":[40,0])"},
    {R"("data_offsets":[0,40])", R"("data_offsets":[0])"},
    {R"("data_offsets":[40,136])", R"("data_offsets":[0,96])"},
    {R"({"__metadata__":)", R"({"__metadata__":null,"metadata":)"},
    {R"({"unrolled":)", R"({"rolled":)"},
    {R"({"unrolled":)", R"({"more":3,"unrolled":)"},
    {R"({"unrolled":)", R"({"more":"\ud800","unrolled":)"},
};

// Changes that leave the model the same.
const Change kSound[] = {
    {R"(\"codec\": null)",
     R"(\"codec\": {\"items\": [[{\"tuple\": [1]}, {\"float\": \"nan\"}], [2, [\"\\ud800\", 1.5e3]]]})"},
    {R"(\"codec\": null)", R"(\"codec\": {\"dict\": {\"a\": {\"tuple\": []}, \"b\": true}})"},
    {R"({\"tuple\": [2, 4, 4]})", R"([2, 4, 4])"},
    {R"(\"version\": 1, \"weights\")", R"(\"version\": 2, \"weights\")"},
    {R"(\"start\": [)", R"(\"merge\": \"sum\", \"start\": [)"},
    {R"(\"weights\": \"float32\")", R"(\"weights\": \"int8\")"},
    {R"(\"weights\": \"float32\")", R"(\"weights\": \"bfloat16\")"},
    {R"({"__metadata__":)", "{ \n\"__metadata__\" :\t"},
    {R"({"unrolled":)", R"({"more":"\ud83d\ude00 \u00e9","unrolled":)"},
};

std::string changed(std::string text, const Change& change, Checks& checks) {
    const std::size_t at = text.find(change.from);
    if (!checks.that(at != std::string::npos, std::string("no ") + change.from)) return text;
    return text.replace(at, std::strlen(change.from), change.to);
}

void check_changes(const std::string& golden, Checks& checks) {
    const Parts whole = parts_of(golden);
    for (const Change& fault : kFaults)
        checks.that(refused(Parts{changed(whole.header, fault, checks), whole.data}.bytes()),
                    std::string("loads with ") + fault.to + " in place of " + fault.from);
    for (const Change& sound : kSound) {
        std::string error;
        const ModelOwner model = read(Parts{changed(whole.header, sound, checks), whole.data}.bytes(), error);
        if (checks.that(model != nullptr, std::string("refused with ") + sound.to + ": " + error))
            use(model.get(), checks, sound.to);
    }
    for (std::size_t depth : {std::size_t(40), std::size_t(70), std::size_t(1000000)}) {
        const std::string value = std::string(depth, '[') + std::string(depth, ']');
        const std::string text = R"(\"codec\": )" + value;
        const Change change{R"(\"codec\": null)", text.c_str()};
        checks.that(refused(Parts{changed(whole.header, change, checks), whole.data}.bytes()) == (depth > 64),
                    "values " + std::to_string(depth) + " deep");
    }
    for (const std::string& header : {std::string(1000000, '['), std::string(1000000, '{'), std::string(),
                                      std::string("{}"), std::string("[]")})
        checks.that(refused(Parts{header, ""}.bytes()), "a header of brackets, or nothing");
    for (int byte : {0x7f, 0x80, 0xff}) {
        std::string far = golden;
        std::fill_n(far.begin(), 8, static_cast<char>(byte));
        checks.that(refused(far), "a header longer than all memory");
    }
}

// A few lines that would allocate a gigabyte.
void check_buffer_sizes(const std::string& golden, Checks& checks) {
    const std::string wide = R"(unrolled-program 1\\nstate H\\ninput 1 1\\nnode state H 0\\nnode x 1 0)"
                             R"(\\nnode add H 0 1\\nnode grad H 0\\nforward 2\\nstored\\nsource\\ndx -)"
                             R"(\\ndstate 3\\ndvector\\n)";
    Parts file = parts_of(golden);
    const std::size_t from = file.header.find("unrolled-program 1");
    const std::size_t to = file.header.find(R"(\")", from);
    file.header.replace(from, to - from, wide);
    const auto with = [&](const char* size) {
        const std::string sizes = std::string("[2, ") + size + ", " + size + "]";
        const std::string header = changed(file.header, {R"({\"tuple\": [2, 4, 4]})", sizes.c_str()}, checks);
        std::string error;
        read(Parts{header, file.data}.bytes(), error);
        return error;
    };
    checks.that(with("16777216").find("may ask for") != std::string::npos, "a step of a gigabyte");
    checks.that(with("4").find("may ask for") == std::string::npos, "a step of nothing");
}

// Damages a header: changed bytes and numbers, pieces removed or duplicated.
std::string damaged(const Parts& whole, Random& random) {
    Parts result = whole;
    for (Index changes = 1 + random.below(3); changes > 0 && !result.header.empty(); --changes) {
        std::string& text = result.header;
        const std::size_t at = random.place(text.size());
        const std::size_t some = std::min(text.size() - at, random.place(40));
        switch (random.below(8)) {
        case 0: text.erase(at, some); break;
        case 1: text.insert(at, text.substr(random.place(text.size()), some)); break;
        case 2: text[at] ^= static_cast<char>(1 << random.below(8)); break;
        case 3:
            if (!result.data.empty())
                result.data[random.place(result.data.size())] = static_cast<char>(random.below(256));
            break;
        case 4: result.data.resize(random.place(result.data.size() + 5)); break;
        default: {
            const std::size_t digit = text.find_first_of("0123456789", at);
            if (digit == std::string::npos) break;
            static const char* const numbers[] = {"0",
                                                  "1",
                                                  "2",
                                                  "3",
                                                  "4",
                                                  "12",
                                                  "-1",
                                                  "16777217",
                                                  "999999999999",
                                                  "1.5",
                                                  "18446744073709551616"};
            text.replace(digit, 1, numbers[random.place(sizeof numbers / sizeof *numbers)]);
        }
        }
    }
    return result.bytes();
}

void check_damage(const std::string& golden, const std::string& name, bool quick, Checks& checks) {
    for (std::size_t cut = 0; cut < golden.size(); cut += quick ? 129 : 13)
        checks.that(refused(golden.substr(0, cut)), name + " cut at " + std::to_string(cut));
    checks.that(refused(golden + '\0'), name + " with a byte more");
    Random random(7);
    const Parts whole = parts_of(golden);
    const int rounds = quick ? 150 : 1000;
    int loaded = 0;
    for (int round = 0; round < rounds; ++round) {
        const std::string label = name + ", damage " + std::to_string(round);
        std::string error;
        const ModelOwner model = read(damaged(whole, random), error);
        if (!checks.that(model || !error.empty(), label + ": refused without a word") || !model) continue;
        ++loaded;
        use(model.get(), checks, label);
    }
    checks.that(loaded > rounds / 75 && loaded < rounds, name + ": all files load, or none");
    for (int round = 0; round < (quick ? 50 : 500); ++round) {
        std::string noise(random.place(300), ' ');
        for (char& c : noise) c = static_cast<char>(random.below(256));
        checks.that(refused(noise) && refused(Parts{noise, ""}.bytes()), "noise loads");
    }
}

// Threads create and step streams of one model, of batch sizes that pack weights again; or all use one
// stream, where each step runs as a whole or reports that the stream is busy.
void check_threads(const unrolled_model* model, Checks& checks) {
    const auto outputs = static_cast<std::size_t>(unrolled_model_outputs(model));
    const std::vector<std::int64_t> tokens(40, 1);
    const auto steps = [&](std::int64_t N, std::vector<float>& out) {
        out.resize(static_cast<std::size_t>(N) * outputs);
        const StreamOwner stream(unrolled_stream_create(model, N, nullptr, 0));
        for (int t = 0; stream && t < 20; ++t)
            unrolled_stream_step_tokens(stream.get(), tokens.data(), out.data());
    };
    std::vector<float> alone, found[4];
    std::vector<std::thread> threads;
    for (int k = 0; k < 4; ++k)
        threads.emplace_back([&, k] {
            for (std::int64_t N : {1, 3, 5, 8, 16, 40}) steps(N, found[k]);
        });
    for (std::thread& thread : threads) thread.join();
    steps(1, alone);
    for (const std::vector<float>& one : found)
        checks.that(!std::memcmp(one.data(), alone.data(), outputs * sizeof(float)),
                    "threads have other numbers");
    const StreamOwner shared(unrolled_stream_create(model, 1, nullptr, 0));
    std::atomic<int> done{0}, wrong{0};
    threads.clear();
    for (int k = 0; k < 3; ++k)
        threads.emplace_back([&] {
            std::vector<float> out(outputs);
            for (int t = 0; t < 300; ++t) {
                const unrolled_status status =
                    unrolled_stream_step_tokens(shared.get(), tokens.data(), out.data());
                done += status == UNROLLED_OK;
                wrong += status != UNROLLED_OK && status != UNROLLED_BUSY;
            }
        });
    for (std::thread& thread : threads) thread.join();
    checks.that(done > 0 && wrong == 0, "threads in one stream");
}

}  // namespace

void check_files(const std::string& folder, bool quick, Checks& checks) {
    int loaded = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() != ".safetensors") continue;
        const std::string name = entry.path().stem().string();
        std::ostringstream bytes;
        bytes << std::ifstream(entry.path(), std::ios::binary).rdbuf();
        std::string error;
        const ModelOwner model = read(bytes.str(), error);
        if (error.find("not in the C interface") != std::string::npos) continue;
        if (!checks.that(model != nullptr, name + ": " + error)) continue;
        ++loaded;
        const bool steps = use(model.get(), checks, name);
        if (name == "v1-tokens") {
            checks.that(steps, name + " has no steps");
            check_changes(bytes.str(), checks);
            check_buffer_sizes(bytes.str(), checks);
            check_threads(model.get(), checks);
        }
        check_damage(bytes.str(), name, quick, checks);
    }
    checks.that(loaded >= 8, "few files in " + folder);
}

}  // namespace core_test
