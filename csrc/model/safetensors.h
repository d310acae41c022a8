// A file of named arrays, read whole and checked whole.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support/types.h"

namespace unrolled {

// An array, for as long as its file is there.
struct Array {
    std::string type;  // as the file names it: F32, F64, …
    std::vector<Index> shape;
    Index count = 1;           // the product of the shape
    Index begin = 0, end = 0;  // its bytes among all
    const void* numbers = nullptr;
};

class Safetensors {
public:
    // They throw std::invalid_argument with the fault: no such file, or it is damaged.
    static Safetensors of_path(const char* path);
    static Safetensors of_memory(const void* bytes, std::size_t count);  // which is copied

    // An array by name; throws where there is none.
    const Array& array(const std::string& name) const;

    // A text of the metadata by name, or null.
    const std::string* text(const std::string& name) const;

    Index size() const { return size_; }  // of the file, in bytes

private:
    // Puts the next so many bytes there, or gives false.
    using Read = std::function<bool(void* to, std::size_t bytes)>;

    Safetensors(std::size_t size, const Read& read);
    void read_all(std::size_t size, const Read& read);
    void read_header(const std::string& text);
    void place(std::size_t room);

    std::map<std::string, Array> arrays_;
    std::map<std::string, std::string> texts_;
    Index size_ = 0, bytes_ = 0;  // of the file, and of all arrays
    std::unique_ptr<double[]> numbers_;  // all arrays, one after the other
};

}  // namespace unrolled
