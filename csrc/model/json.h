// A strict reader of JSON (RFC 8259, no duplicate keys) that builds no tree: a text is checked as a whole,
// and values are views of it. So a hostile text needs at most a small multiple of its length in memory. io.py
// accepts the same texts.
#pragma once

#include <string>
#include <string_view>

#include "support/types.h"

namespace unrolled {

// Scans values of a text; throws std::invalid_argument with position and reason.
class JsonScanner {
public:
    explicit JsonScanner(std::string_view text) : text_(text) {}

    // Skips a value. `keys`: objects must not have duplicate keys.
    void value(int depth, bool keys = false);
    void space();
    bool take(char c);  // skips c if it comes next
    void expect(char c);
    bool done() const { return at_ == text_.size(); }
    std::string_view string();  // with its quotes
    std::size_t at() const { return at_; }
    std::string_view since(std::size_t start) const { return text_.substr(start, at_ - start); }
    [[noreturn]] void fail(const std::string& what) const;

private:
    char peek() const { return done() ? '\0' : text_[at_]; }
    void object(int depth, bool keys);
    void escape();
    void digits();
    void number();
    void word(std::string_view expected);

    std::string_view text_;
    std::size_t at_ = 0;
};

// A value; its text must outlive it. Access as another type throws std::invalid_argument.
class Json {
public:
    // Checks a whole text in UTF-8.
    explicit Json(std::string_view text);

    std::string_view text() const { return text_; }
    bool is_null() const { return text_ == "null"; }
    bool is_boolean() const { return text_ == "true" || text_ == "false"; }
    bool is_string() const { return text_[0] == '"'; }
    bool is_list() const { return text_[0] == '['; }
    bool is_object() const { return text_[0] == '{'; }

    std::string string() const;  // in UTF-8
    Index integer() const;       // of at most 15 digits

    // Calls f(Json) for each item of a list.
    template <class F>
    void items(F f) const {
        JsonScanner scanner = enter('[', "a list");
        if (scanner.take(']')) return;
        do {
            f(next(scanner));
        } while (scanner.take(','));
    }

    // Calls f(std::string, Json) for each entry of an object.
    template <class F>
    void entries(F f) const {
        JsonScanner scanner = enter('{', "an object");
        if (scanner.take('}')) return;
        do {
            scanner.space();
            const std::string key = Json(scanner.string(), AlreadyChecked()).string();
            scanner.space();
            scanner.expect(':');
            f(key, next(scanner));
        } while (scanner.take(','));
    }

    // The value of a key, which must exist; and whether it exists.
    Json at(std::string_view key) const;
    bool has(std::string_view key) const;

private:
    struct AlreadyChecked {};
    Json(std::string_view text, AlreadyChecked) : text_(text) {}

    JsonScanner enter(char bracket, const char* expected) const;
    static Json next(JsonScanner& scanner);

    std::string_view text_;
};

}  // namespace unrolled
