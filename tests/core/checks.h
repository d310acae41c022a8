// Counts checks, and prints those that fail.
#pragma once

#include <cstdio>
#include <string>

namespace core_test {

class Checks {
public:
    bool that(bool holds, const std::string& what) {
        ++done_;
        if (!holds && ++failed_ <= kMaxPrinted) std::fprintf(stderr, "failed: %s\n", what.c_str());
        return holds;
    }

    long done() const { return done_; }
    long failed() const { return failed_; }

private:
    static constexpr long kMaxPrinted = 20;  // printed; further failures are only counted
    long done_ = 0, failed_ = 0;
};

}  // namespace core_test
