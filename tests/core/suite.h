// The parts of the test program, and what they share.
#pragma once

#include <string>
#include <vector>

#include "checks.h"
#include "dispatch/builds.h"
#include "problem.h"

namespace core_test {

struct Text {
    std::string name, text;
};

// What to test; quick: fewer sizes, for emulators and sanitizers.
struct Options {
    bool quick = false;
    std::string build;     // only this one
    std::string programs;  // a folder of texts
    std::string files;     // a folder of exported models
};

// A build, and the checks on it.
struct Subject {
    const unrolled::Build* build;
    Checks checks;
};

// The texts in a folder, by name.
std::vector<Text> read_texts(const std::string& folder);

// Widths for a text: projected states are about half as wide as the others.
unrolled::Program load(const std::string& text, Index H, Index I);

// Values and gradients of all programs against the naive reference.
void check_values(const std::vector<Text>& texts, bool quick, std::vector<Subject>& subjects);

// Each sequence of a batch against the same one among more sequences.
void check_rows(const std::vector<Text>& texts, bool quick, std::vector<Subject>& subjects);

// exp, sigmoid and tanh over their range, in units in the last place.
void check_functions(bool quick, std::vector<Subject>& subjects);

// Digests of weights: whatever changes, they change; and what a cache of packed weights keeps.
void check_digests(bool quick, std::vector<Subject>& subjects);
void check_weight_cache(Checks& checks);

// Damaged texts: errors, or programs that run like any other.
void check_texts(const std::vector<Text>& texts, bool quick, std::vector<Subject>& subjects, Checks& checks);

// Sweeps with too little memory; in guarded_test only.
void check_shortage(const std::vector<Text>& texts, const unrolled::Build& build, Checks& checks)
    __attribute__((weak));

// Steps of pipelines, which must not allocate; in guarded_test only.
void check_chains(const std::vector<Text>& texts, const unrolled::Build& build, Checks& checks)
    __attribute__((weak));

// Floating-point exceptions that the host has unmasked, and long streams.
void check_hosts(const std::vector<Text>& texts, const unrolled::Build& build, Checks& checks);

// Threads of a sweep that come late, leave and return.
void check_rounds(const std::vector<Text>& texts, const unrolled::Build& build, bool quick, Checks& checks);

// Exported files, whole and damaged, through the C interface.
void check_files(const std::string& folder, bool quick, Checks& checks);

// Texts that are JSON, and some that are not.
void check_json(Checks& checks);

// Blocks of the memory that sweeps use.
void check_memory(Checks& checks);

}  // namespace core_test
