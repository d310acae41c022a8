// A safetensors file: named arrays, read and checked as a whole.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support/types.h"

namespace unrolled {

// An array; its file must outlive it.
struct Array {
    std::string type;  // the name in the file: F32, F64, …
    std::vector<Index> shape;
    Index count = 1;           // the product of the shape
    Index begin = 0, end = 0;  // its bytes among those of all arrays
    const void* numbers = nullptr;
};

class Safetensors {
public:
    // They throw std::invalid_argument where the file does not exist or is damaged.
    static Safetensors of_path(const char* path);
    static Safetensors of_memory(const void* bytes, std::size_t count);  // copies

    // An array by name; throws if there is none.
    const Array& array(const std::string& name) const;

    // A text of the metadata by name, or null.
    const std::string* text(const std::string& name) const;

    Index size() const { return size_; }  // of the file, in bytes

private:
    // Reads the next bytes; false: there are too few.
    using Read = std::function<bool(void* to, std::size_t bytes)>;

    Safetensors(std::size_t size, const Read& read);
    void read_all(std::size_t size, const Read& read);
    void read_header(const std::string& text);
    void check_layout(std::size_t bytes);  // of all arrays

    std::map<std::string, Array> arrays_;
    std::map<std::string, std::string> texts_;
    Index size_ = 0, bytes_ = 0;      // of the file, and of all arrays
    std::unique_ptr<double[]> data_;  // all arrays, one after the other
};

}  // namespace unrolled
