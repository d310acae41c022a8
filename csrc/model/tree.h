// Trees of plain values and arrays in a safetensors file, as src/unrolled/io.py writes them.
#pragma once

#include <stdexcept>
#include <string>

#include "model/json.h"
#include "model/safetensors.h"

namespace unrolled {

// A value of a tree as io.py encodes it: an object has one key, a tag with the type of the value.
class Tree {
public:
    Tree(Json json, const Safetensors& file) : json_(json), file_(&file) {}

    // Checks the whole tree, and that its arrays exist.
    void check() const {
        if (json_.is_list()) check_items();
        if (!json_.is_object()) return;
        const std::string tag = this->tag();
        const Tree inner(json_.at(tag), *file_);
        if (tag == "array") {
            file_->array(inner.string());
        } else if (tag == "float") {
            const std::string text = inner.string();
            if (text != "nan" && text != "inf" && text != "-inf")
                fail("float must be nan, inf or -inf, got " + text);
        } else if (tag == "tuple") {
            inner.check_items();
        } else if (tag == "dict") {
            inner.json_.entries([&](const std::string&, Json item) { Tree(item, *file_).check(); });
        } else if (tag == "items") {
            inner.check_pairs();
        } else {
            fail("unknown tag");
        }
    }

    bool none() const { return json_.is_null(); }
    std::string string() const { return json_.string(); }
    Index integer() const { return json_.integer(); }

    bool is_boolean() const { return json_.is_boolean(); }
    bool is_dict() const { return json_.is_object() && json_.has("dict"); }

    // The entry of a dict, and whether it exists.
    Tree at(const char* key) const { return Tree(json_.at("dict").at(key), *file_); }
    bool has(const char* key) const { return json_.at("dict").has(key); }

    // Calls f(Tree) for each item of a list or a tuple.
    template <class F>
    void items(F f) const {
        const Json list = json_.is_object() ? json_.at("tuple") : json_;
        list.items([&](Json item) { f(Tree(item, *file_)); });
    }

    const Array& array(const char* type) const {
        const Array& result = file_->array(json_.at("array").string());
        if (result.type != type)
            fail(std::string("an array must have type ") + type + ", got " + result.type);
        return result;
    }

private:
    [[noreturn]] static void fail(const std::string& what) { throw std::invalid_argument(what); }

    std::string tag() const {
        std::string name;
        int count = 0;
        json_.entries([&](const std::string& key, Json) {
            if (++count > 1) fail("an object must have one tag, got more");
            name = key;
        });
        return name;
    }

    // Checks the pairs of a dictionary that has a key which is not a string.
    void check_pairs() const {
        bool strings = true;
        json_.items([&](Json pair) {
            Index count = 0;
            pair.items([&](Json item) {
                if (count == 0) strings = strings && item.is_string();
                if (count++ == 0) Tree(item, *file_).check_key();
                else Tree(item, *file_).check();
            });
            if (count != 2) fail("items must be pairs");
        });
        if (strings) fail("items: one key must not be a string");
    }

    void check_key() const {
        if (json_.is_list()) fail("items: a key must not be a list");
        if (json_.is_object()) {
            const std::string tag = this->tag();
            if (tag == "tuple") json_.at(tag).items([&](Json item) { Tree(item, *file_).check_key(); });
            else if (tag != "float") fail("items: a key must be plain");
        }
        check();
    }

    // Checks the items of a list; returns their number.
    Index check_items() const {
        Index count = 0;
        json_.items([&](Json item) {
            Tree(item, *file_).check();
            ++count;
        });
        return count;
    }

    Json json_;
    const Safetensors* file_;
};

}  // namespace unrolled
