// Trees of plain values and arrays in a safetensors file, as io.py writes them.
#pragma once

#include <stdexcept>
#include <string>

#include "model/json.h"
#include "model/safetensors.h"

namespace unrolled {

// A value of a tree as io.py encodes it: an object has one key, the tag that says what it stands for.
class Tree {
public:
    Tree(Json json, const Safetensors& file) : json_(json), file_(&file) {}

    // That it is one all the way down, and that its arrays are there.
    void check() const {
        if (json_.is_list()) check_items();
        if (!json_.is_object()) return;
        const std::string tag = this->tag();
        const Tree inner(json_.at(tag), *file_);
        if (tag == "array") {
            file_->array(inner.string());
        } else if (tag == "float") {
            const std::string text = inner.string();
            if (text != "nan" && text != "inf" && text != "-inf") fail("float: wanted nan or inf");
        } else if (tag == "tuple") {
            inner.check_items();
        } else if (tag == "dict") {
            inner.json_.entries([&](const std::string&, Json one) { Tree(one, *file_).check(); });
        } else if (tag == "items") {
            inner.check_pairs();
        } else {
            fail("unknown tag");
        }
    }

    bool none() const { return json_.is_null(); }
    std::string string() const { return json_.string(); }
    Index whole() const { return json_.whole(); }

    bool is_boolean() const { return json_.is_boolean(); }
    bool is_dict() const { return json_.is_object() && json_.has("dict"); }

    // Of a dict, what stands under a key, and whether something does.
    Tree at(const char* key) const { return Tree(json_.at("dict").at(key), *file_); }
    bool has(const char* key) const { return json_.at("dict").has(key); }

    // Calls f(Tree) for each item of a list or a tuple.
    template <class F>
    void items(F f) const {
        const Json list = json_.is_object() ? json_.at("tuple") : json_;
        list.items([&](Json one) { f(Tree(one, *file_)); });
    }

    const Array& array(const char* type) const {
        const Array& found = file_->array(json_.at("array").string());
        if (found.type != type) fail(std::string("an array that is not of ") + type);
        return found;
    }

private:
    [[noreturn]] static void fail(const std::string& what) { throw std::invalid_argument(what); }

    std::string tag() const {
        std::string found;
        int count = 0;
        json_.entries([&](const std::string& key, Json) {
            if (++count > 1) fail("a second tag");
            found = key;
        });
        return found;
    }

    // Of a dictionary that has a key which is no string, keys and values.
    void check_pairs() const {
        bool strings = true;
        json_.items([&](Json pair) {
            Index count = 0;
            pair.items([&](Json one) {
                if (count == 0) strings = strings && one.is_string();
                if (count++ == 0) Tree(one, *file_).check_key();
                else Tree(one, *file_).check();
            });
            if (count != 2) fail("items: wanted pairs");
        });
        if (strings) fail("items: wanted a key that is no string");
    }

    void check_key() const {
        if (json_.is_list()) fail("items: a list is no key");
        if (json_.is_object()) {
            const std::string tag = this->tag();
            if (tag == "tuple")
                json_.at(tag).items([&](Json one) { Tree(one, *file_).check_key(); });
            else if (tag != "float") fail("items: wanted a plain key");
        }
        check();
    }

    // How many there are.
    Index check_items() const {
        Index count = 0;
        json_.items([&](Json one) {
            Tree(one, *file_).check();
            ++count;
        });
        return count;
    }

    Json json_;
    const Safetensors* file_;
};

}  // namespace unrolled
