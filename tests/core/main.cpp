// Tests of the core alone, without Python and torch. See docs/decisions/0015-core-tests.md.
#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "suite.h"

namespace core_test {

std::vector<Text> read_texts(const std::string& folder) {
    std::vector<Text> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() != ".txt") continue;
        std::ostringstream text;
        text << std::ifstream(entry.path()).rdbuf();
        found.push_back({entry.path().stem().string(), text.str()});
    }
    if (found.empty()) throw std::runtime_error("no programs in " + folder);
    std::sort(found.begin(), found.end(), [](const Text& a, const Text& b) { return a.name < b.name; });
    return found;
}

unrolled::Program load(const std::string& text, Index H, Index I) {
    return unrolled::parse(text, H, (H + 1) / 2, I);
}

namespace {

Options read_options(int count, char** words) {
    Options options;
    options.programs = UNROLLED_PROGRAMS;
    options.files = UNROLLED_FILES;
    for (int k = 1; k < count; ++k) {
        const std::string word = words[k];
        if (word == "--quick") options.quick = true;
        else if (word == "--build" && k + 1 < count) options.build = words[++k];
        else if (word == "--programs" && k + 1 < count) options.programs = words[++k];
        else if (word == "--files" && k + 1 < count) options.files = words[++k];
        else
            throw std::runtime_error(
                "usage: core_test [--quick] [--build NAME] [--programs FOLDER] "
                "[--files FOLDER]");
    }
    return options;
}

void tell(const std::string& name, const Checks& checks) {
    std::printf("%-10s %9ld checks, %ld failed\n", name.c_str(), checks.done(), checks.failed());
}

int run(const Options& options) {
    std::vector<Subject> subjects;
    if (options.build.empty())
        for (const unrolled::Build* build : unrolled::available_builds()) subjects.push_back({build, {}});
    else subjects.push_back({&unrolled::find_build(options.build), {}});
    const std::vector<Text> texts = read_texts(options.programs);
    Checks texts_checks, memory_checks, files_checks, rounds_checks;
    check_memory(memory_checks);
    check_weight_cache(memory_checks);
    if (check_shortage) check_shortage(texts, *subjects.front().build, memory_checks);
    if (check_chains)
        for (const Subject& subject : subjects) check_chains(texts, *subject.build, memory_checks);
    for (Subject& subject : subjects) check_hosts(texts, *subject.build, subject.checks);
    check_rounds(texts, *subjects.front().build, options.quick, rounds_checks);
    check_json(files_checks);
    check_files(options.files, options.quick, files_checks);
    check_digests(options.quick, subjects);
    check_functions(options.quick, subjects);
    check_values(texts, options.quick, subjects);
    check_rows(texts, options.quick, subjects);
    check_texts(texts, options.quick, subjects, texts_checks);
    tell("memory", memory_checks);
    tell("files", files_checks);
    tell("texts", texts_checks);
    tell("rounds", rounds_checks);
    long failed =
        rounds_checks.failed() + memory_checks.failed() + files_checks.failed() + texts_checks.failed();
    for (const Subject& subject : subjects) {
        tell(subject.build->name, subject.checks);
        failed += subject.checks.failed();
    }
    return failed > 0;
}

}  // namespace
}  // namespace core_test

int main(int count, char** words) {
    try {
        return core_test::run(core_test::read_options(count, words));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "core_test: %s\n", error.what());
        return 2;
    }
}
