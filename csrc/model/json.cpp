#include "model/json.h"

#include <algorithm>
#include <deque>
#include <stdexcept>
#include <vector>

namespace unrolled {
namespace {

constexpr int kMaxDepth = 64;            // of nested values; descriptions have a dozen
constexpr std::size_t kMaxDigits = 400;  // characters of a number
constexpr std::size_t kMaxShown = 200;   // characters of a name in a message

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The value of a hexadecimal digit, or -1.
int hexadecimal(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// Bytes of the character at `at`; 0: not UTF-8.
std::size_t character(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t k) {
        return at + k < text.size() ? static_cast<unsigned char>(text[at + k]) : 0u;
    };
    const unsigned lead = byte(0), second = byte(1);
    const std::size_t count = lead < 0x80   ? 1
                              : lead < 0xc2 ? 0
                              : lead < 0xe0 ? 2
                              : lead < 0xf0 ? 3
                              : lead < 0xf5 ? 4
                                            : 0;
    for (std::size_t k = 1; k < count; ++k)
        if ((byte(k) & 0xc0) != 0x80) return 0;
    // Overlong encodings, surrogates, or beyond the last character.
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
        (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f))
        return 0;
    return count;
}

void append(std::string& to, unsigned code) {
    const auto tail = [&to, code](int shift) { to += static_cast<char>(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) {
        to += static_cast<char>(code);
    } else if (code < 0x800) {
        to += static_cast<char>(0xc0 | code >> 6);
        tail(0);
    } else if (code < 0x10000) {
        to += static_cast<char>(0xe0 | code >> 12);
        tail(6);
        tail(0);
    } else {
        to += static_cast<char>(0xf0 | code >> 18);
        tail(12);
        tail(6);
        tail(0);
    }
}

// Four hexadecimal digits, already checked.
unsigned code_at(std::string_view text, std::size_t at) {
    unsigned code = 0;
    for (std::size_t k = 0; k < 4; ++k) code = code * 16 + static_cast<unsigned>(hexadecimal(text[at + k]));
    return code;
}

// The character of an escape \uXXXX, or of a surrogate pair. `at` moves from its backslash behind it.
unsigned unescape(std::string_view text, std::size_t& at) {
    const unsigned high = code_at(text, at + 2);
    at += 6;
    if (high < 0xd800 || high > 0xdfff) return high;
    if (high < 0xdc00 && text.substr(at, 2) == "\\u") {
        const unsigned low = code_at(text, at + 2);
        if (low >= 0xdc00 && low <= 0xdfff) {
            at += 6;
            return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    throw std::invalid_argument("JSON: a surrogate must be one of a pair");
}

// The value of a quoted string, already checked, in UTF-8.
std::string unescaped(std::string_view text) {
    std::string result;
    for (std::size_t at = 1; at + 1 < text.size();) {
        if (text[at] != '\\') {
            result += text[at++];
            continue;
        }
        const char code = text[at + 1];
        if (code == 'u') {
            append(result, unescape(text, at));
            continue;
        }
        const char* const escapes = "b\bf\fn\nr\rt\t";
        char character = code;
        for (const char* pair = escapes; *pair; pair += 2)
            if (*pair == code) character = pair[1];
        result += character;
        at += 2;
    }
    return result;
}

}  // namespace

void JsonScanner::fail(const std::string& what) const {
    throw std::invalid_argument("JSON, byte " + std::to_string(at_) + ": " + what);
}

void JsonScanner::space() {
    while (!done() && (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')) ++at_;
}

bool JsonScanner::take(char c) {
    space();
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
}

void JsonScanner::expect(char c) {
    if (!take(c)) fail(std::string("expected ") + c);
}

void JsonScanner::value(int depth, bool keys) {
    if (depth > kMaxDepth) fail("values are nested too deep");
    space();
    if (take('{')) {
        object(depth, keys);
    } else if (take('[')) {
        if (take(']')) return;
        do value(depth + 1, keys);
        while (take(','));
        expect(']');
    } else if (peek() == '"') {
        string();
    } else if (peek() == '-' || is_digit(peek())) {
        number();
    } else if (peek() == 't') {
        word("true");
    } else if (peek() == 'f') {
        word("false");
    } else {
        word("null");
    }
}

// After the bracket.
void JsonScanner::object(int depth, bool keys) {
    std::vector<std::string_view> names;  // without quotes, of keys without escapes
    std::deque<std::string> escaped;
    if (take('}')) return;
    do {
        space();
        const std::string_view name = string();
        const bool plain = name.find('\\') == std::string_view::npos;
        if (keys && !plain) escaped.push_back(unescaped(name));
        if (keys) names.push_back(plain ? name.substr(1, name.size() - 2) : escaped.back());
        expect(':');
        value(depth + 1, keys);
    } while (take(','));
    expect('}');
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail("`" + std::string(twice->substr(0, kMaxShown)) + "` is a key twice");
}

std::string_view JsonScanner::string() {
    const std::size_t start = at_;
    if (peek() != '"') fail("expected a string");
    ++at_;
    while (peek() != '"') {
        const unsigned char c = static_cast<unsigned char>(peek());
        if (done() || c < 0x20) fail("a string does not end");
        if (c == '\\') {
            escape();
            continue;
        }
        const std::size_t bytes = character(text_, at_);
        if (bytes == 0) fail("a string must be UTF-8");
        at_ += bytes;
    }
    ++at_;
    return since(start);
}

void JsonScanner::escape() {
    ++at_;
    const char kind = peek();
    if (kind == '\0' || std::string_view("\"\\/bfnrtu").find(kind) == std::string_view::npos)
        fail("unknown escape");
    ++at_;
    for (int k = 0; kind == 'u' && k < 4; ++k, ++at_)
        if (hexadecimal(peek()) < 0) fail("unknown escape");
}

void JsonScanner::digits() {
    if (!is_digit(peek())) fail("expected a digit");
    while (is_digit(peek())) ++at_;
}

void JsonScanner::number() {
    const std::size_t start = at_;
    if (peek() == '-') ++at_;
    if (peek() == '0') ++at_;
    else digits();
    if (peek() == '.') {
        ++at_;
        digits();
    }
    if (peek() == 'e' || peek() == 'E') {
        ++at_;
        if (peek() == '+' || peek() == '-') ++at_;
        digits();
    }
    if (at_ - start > kMaxDigits) fail("a number is too long");
}

void JsonScanner::word(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) fail("expected a value");
    at_ += expected.size();
}

Json::Json(std::string_view text) {
    JsonScanner scanner(text);
    scanner.space();
    const std::size_t start = scanner.at();
    scanner.value(0, true);
    text_ = scanner.since(start);
    scanner.space();
    if (!scanner.done()) scanner.fail("text must end behind the value");
}

JsonScanner Json::enter(char bracket, const char* expected) const {
    if (text_[0] != bracket) throw std::invalid_argument(std::string("JSON: expected ") + expected);
    JsonScanner scanner(text_);
    scanner.take(bracket);
    return scanner;
}

Json Json::next(JsonScanner& scanner) {
    scanner.space();
    const std::size_t start = scanner.at();
    scanner.value(0);
    return Json(scanner.since(start), AlreadyChecked());
}

Json Json::at(std::string_view key) const {
    std::string_view entry;
    entries([&](const std::string& name, Json value) {
        if (name == key) entry = value.text();
    });
    if (entry.empty()) throw std::invalid_argument("there is no `" + std::string(key) + "`");
    return Json(entry, AlreadyChecked());
}

bool Json::has(std::string_view key) const {
    bool exists = false;
    entries([&](const std::string& name, Json) { exists = exists || name == key; });
    return exists;
}

std::string Json::string() const {
    if (!is_string()) throw std::invalid_argument("JSON: expected a string");
    return unescaped(text_);
}

Index Json::integer() const {
    const std::size_t sign = text_[0] == '-' ? 1 : 0;
    const std::string_view digits = text_.substr(sign);
    if (digits.size() > 15 || digits.find_first_not_of("0123456789") != std::string_view::npos)
        throw std::invalid_argument("JSON: expected an integer of at most 15 digits");
    Index value = 0;
    for (char c : digits) value = value * 10 + (c - '0');
    return sign ? -value : value;
}

}  // namespace unrolled
