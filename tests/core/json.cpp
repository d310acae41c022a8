// The reader of JSON: what it accepts, what it rejects, and values of escapes.
#include "model/json.h"

#include <stdexcept>

#include "suite.h"

namespace core_test {

void check_json(Checks& checks) {
    const auto holds = [](const std::string& text) {
        try {
            unrolled::Json{text};
            return true;
        } catch (const std::invalid_argument&) {
            return false;
        }
    };
    for (const char* text : {"",
                             " ",
                             "{",
                             "[",
                             "[1,]",
                             "[,1]",
                             "[1 2]",
                             "[1]]",
                             R"({"a":1,})",
                             R"({"a" 1})",
                             "{1:2}",
                             R"({"a"})",
                             "01",
                             "1.",
                             ".5",
                             "+1",
                             "-",
                             "1e",
                             "1e+",
                             "nul",
                             "nullx",
                             "True",
                             "NaN",
                             "'a'",
                             "\"abc",
                             "\"abc\\",
                             "\"a\nb\"",
                             R"("\x")",
                             R"("\u12g4")",
                             R"("\u12)",
                             "\"\xff\"",
                             "\"\xc0\x80\"",
                             "\"\xe0\x80\x80\"",
                             "\"\xed\xa0\x80\"",
                             "\"\xf5\x80\x80\x80\"",
                             "\"\xc3\"",
                             "1 2",
                             "\xef\xbb\xbf"
                             "1"})
        checks.that(!holds(text), std::string("accepted as JSON: ") + text);
    for (const char* text : {" 0 ", "-0.5e-3", "[]", "{ }", "[[], {}]", R"({"a": [1, null, true]})"})
        checks.that(holds(text), std::string("not accepted as JSON: ") + text);
    const std::string escaped = R"("\"\\\/\b\f\n\r\t\u0041\u00e9\u20ac\ud83d\ude00é")";
    checks.that(
        unrolled::Json(escaped).string() == "\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa9",
        "escapes");
    checks.that(unrolled::Json("-120").integer() == -120, "a whole number");
}

}  // namespace core_test
