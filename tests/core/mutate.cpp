#include "mutate.h"

#include <iterator>
#include <sstream>

namespace core_test {
namespace {

using Words = std::vector<std::string>;

Words split(const std::string& text, char at) {
    Words result;
    std::string word;
    for (std::istringstream stream(text); std::getline(stream, word, at);) result.push_back(word);
    return result;
}

std::string joined(const Words& words, const char* between) {
    std::string result;
    for (const std::string& word : words) result += (result.empty() ? "" : between) + word;
    return result;
}

template <class List>
auto& any(List& words, Random& random) {
    return words[random.place(words.size())];
}

bool is_number(const std::string& word) {
    return !word.empty() && word.find_first_not_of("0123456789") == std::string::npos;
}

// A number near another: another node, an unknown block.
std::string near(const std::string& number, Random& random) {
    const long long value = std::stoll(number.substr(0, 9));
    switch (random.below(4)) {
    case 0: return std::to_string(value + 1);
    case 1: return std::to_string(value > 0 ? value - 1 : 0);
    default: return std::to_string(random.below(value + 2));
    }
}

std::string strange(Random& random) {
    static const char* const found[] = {
        "-",   "-1",  "0",    "1",    "H",       "P",          "",
        "1e5", "nan", "4095", "4097", "\xff\t0", "1073741824", "99999999999999999999"};
    return found[random.place(std::size(found))];
}

void change_word(std::string& line, Random& random) {
    Words words = split(line, ' ');
    if (words.empty()) return;
    std::string& word = any(words, random);
    if (is_number(word) && random.below(8) > 0) word = near(word, random);
    else if (word.size() == 3 && !is_number(word))
        word = unrolled::kOperations[random.place(std::size(unrolled::kOperations))].code;
    else word = strange(random);
    line = joined(words, " ");
}

void change_lines(Words& lines, Random& random) {
    std::string& line = any(lines, random);
    const auto at = lines.begin() + (&line - lines.data());
    switch (random.below(10)) {
    case 0: lines.erase(at); break;
    case 1: lines.insert(at, std::string(line)); break;
    case 2: std::swap(line, any(lines, random)); break;
    case 3: lines.erase(at, lines.end()); break;
    default: change_word(line, random);
    }
}

}  // namespace

std::string mutate(const std::string& text, Random& random) {
    std::string result = text;
    for (Index changes = 1 + random.below(3); changes > 0; --changes) {
        if (random.below(10) == 0) {
            if (!result.empty())
                result[random.place(result.size())] ^= static_cast<char>(1 << random.below(8));
            continue;
        }
        Words lines = split(result, '\n');
        if (lines.empty()) break;
        change_lines(lines, random);
        result = joined(lines, "\n") + "\n";
    }
    return result;
}

}  // namespace core_test
