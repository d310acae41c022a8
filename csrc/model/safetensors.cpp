#include "model/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include "model/json.h"
#include "support/sizes.h"

namespace unrolled {
namespace {

constexpr std::size_t kMaxHeader = 100'000'000;  // the format's own limit

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument(what); }

Index bytes_of(const std::string& type) {
    static constexpr std::pair<const char*, Index> known[] = {
        {"BOOL", 1}, {"I8", 1},  {"U8", 1},  {"I16", 2}, {"U16", 2}, {"F16", 2}, {"I32", 4},
        {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8}, {"F64", 8}, {"C64", 8}};
    for (const auto& [name, bytes] : known)
        if (type == name) return bytes;
    fail("the type of an array must be a number type, got " + type);
}

// A list of integers, none of them negative.
std::vector<Index> sizes_of(const Json& list) {
    std::vector<Index> sizes;
    list.items([&sizes](const Json& item) {
        sizes.push_back(item.integer());
        if (sizes.back() < 0) fail("sizes must not be negative");
    });
    return sizes;
}

struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

Safetensors Safetensors::of_path(const char* path) {
    const auto value = [] { return std::generic_category().message(errno); };
    const std::unique_ptr<std::FILE, Closer> file(std::fopen(path, "rb"));
    if (!file) throw std::invalid_argument(value());
    if (std::fseek(file.get(), 0, SEEK_END) != 0) throw std::invalid_argument(value());
    const long size = std::ftell(file.get());
    if (size < 0 || std::fseek(file.get(), 0, SEEK_SET) != 0) throw std::invalid_argument(value());
    return Safetensors(static_cast<std::size_t>(size), [&file](void* to, std::size_t bytes) {
        return std::fread(to, 1, bytes, file.get()) == bytes;
    });
}

Safetensors Safetensors::of_memory(const void* bytes, std::size_t count) {
    const char* from = static_cast<const char*>(bytes);
    return Safetensors(count, [&from](void* to, std::size_t bytes_read) {
        std::memcpy(to, from, bytes_read);
        from += bytes_read;
        return true;
    });
}

Safetensors::Safetensors(std::size_t size, const Read& read) {
    try {
        read_all(size, read);
    } catch (const std::invalid_argument& error) {
        fail(std::string("not a whole safetensors file (") + error.what() + ")");
    }
}

void Safetensors::read_all(std::size_t size, const Read& read) {
    unsigned char prefix[8];
    if (size < sizeof(prefix) || !read(prefix, sizeof(prefix))) fail("it is too short, or no file");
    size_ = static_cast<Index>(size);
    std::uint64_t length = 0;
    for (int k = 7; k >= 0; --k) length = length << 8 | prefix[k];
    const std::size_t left = size - sizeof(prefix);
    if (length > left || length > kMaxHeader) fail("its header is longer than the file, or too long");
    std::string text(static_cast<std::size_t>(length), ' ');
    if (!read(&text[0], text.size())) fail("its header cannot be read");
    read_header(text);
    check_layout(left - text.size());
    // Allocated as double, so that all arrays are aligned.
    data_.reset(new double[static_cast<std::size_t>(bytes_) / sizeof(double) + 1]);
    if (!read(data_.get(), static_cast<std::size_t>(bytes_))) fail("its arrays cannot be read");
    for (auto& [name, array] : arrays_)
        array.numbers = reinterpret_cast<const char*>(data_.get()) + array.begin;
}

void Safetensors::read_header(const std::string& text) {
    Json(text).entries([this](const std::string& name, const Json& value) {
        if (name == "__metadata__") {
            value.entries(
                [this](const std::string& key, const Json& value) { texts_.emplace(key, value.string()); });
            return;
        }
        Array array;
        array.type = value.at("dtype").string();
        array.shape = sizes_of(value.at("shape"));
        for (Index size : array.shape) array.count = checked_product(array.count, size);
        const std::vector<Index> offsets = sizes_of(value.at("data_offsets"));
        if (offsets.size() != 2 || offsets[1] - offsets[0] != array.count * bytes_of(array.type))
            fail("`" + name + "`: data_offsets must fit its shape");
        array.begin = offsets[0];
        array.end = offsets[1];
        arrays_.emplace(name, std::move(array));
    });
}

// Checks that arrays lie one behind the other, aligned, and fill the file.
void Safetensors::check_layout(std::size_t bytes) {
    std::vector<const Array*> order;
    for (const auto& [name, array] : arrays_) order.push_back(&array);
    std::sort(order.begin(), order.end(), [](const Array* a, const Array* b) {
        return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
    });
    for (const Array* array : order) {
        if (array->begin != bytes_) fail("arrays must lie one behind the other");
        if (bytes_ % bytes_of(array->type) != 0) fail("an array is not aligned");
        bytes_ = array->end;
    }
    if (static_cast<std::size_t>(bytes_) != bytes) fail("the arrays must fill the file");
}

const Array& Safetensors::array(const std::string& name) const {
    const auto entry = arrays_.find(name);
    if (entry == arrays_.end()) throw std::invalid_argument("there is no array `" + name + "`");
    return entry->second;
}

const std::string* Safetensors::text(const std::string& name) const {
    const auto entry = texts_.find(name);
    return entry == texts_.end() ? nullptr : &entry->second;
}

}  // namespace unrolled
