// Calls of a layer that take some microseconds, and are set up once per size.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "python/tensors.h"

namespace unrolled {

// What a call of one size needs besides its tensors. One call uses it at a time.
struct ShortCall {
    struct Size {
        Index T, N;
        bool batch_first, bf16_products;
        std::string build;
        bool operator==(const Size& other) const {
            return T == other.T && N == other.N && batch_first == other.batch_first &&
                   bf16_products == other.bf16_products && build == other.build;
        }
    };

    Size size;
    std::vector<std::unique_ptr<PreparedSweep>>
        sweeps;         // by layer and direction; null before their first run
    nb::object output;  // results are created like these
    std::vector<nb::object> final;
};

// The last ShortCall of a layer. A call takes it out, so that no two calls ever share one, and puts it back
// at its end. Use with the interpreter's lock, which may be released in between.
class ShortCalls {
public:
    // Null where the last call had another size: sizes that alternate are not set up.
    std::unique_ptr<ShortCall> take(const ShortCall::Size& size) {
        const bool repeated = last_ == size;
        if (!repeated) last_ = size;
        // Destructors of tensors may release the lock: what is removed is destroyed last.
        std::unique_ptr<ShortCall> call = std::move(idle_);
        if (!repeated) return nullptr;
        if (!call || !(call->size == size)) {
            call = std::make_unique<ShortCall>();
            call->size = size;
        }
        return call;
    }

    void put_back(std::unique_ptr<ShortCall> call) { std::swap(idle_, call); }

private:
    ShortCall::Size last_{};
    std::unique_ptr<ShortCall> idle_;
};

}  // namespace unrolled
