// Digests of weights: they are read once, at the speed of memory.
//
// Each half of a digest has sums of its own, one for every word of a few vectors. A number is xored to its
// sum, which is then rotated and multiplied by an odd constant. Each of these steps can be undone, and so
// can those that join the sums at the end: contents that differ in one word differ in both halves. Bits that
// the multiplication for one half spreads little are spread by that for the other.
#pragma once

#include "dispatch/weight_cache.h"
#include "kernels/buffer.h"

namespace unrolled {
namespace UNROLLED_BUILD {

typedef std::uint64_t Words __attribute__((vector_size(UNROLLED_BYTES)));
typedef Words UnalignedWords __attribute__((aligned(1), may_alias));

constexpr Index kDigestChunk = 32 * 1024;  // bytes that one thread reads in turn
constexpr Index kDigestVectors = 4;        // independent sums hide the latency of the multiplication
constexpr Index kDigestBlock = kDigestVectors * UNROLLED_BYTES;

template <int bits, class W>
inline W mix(W sum, W x, std::uint64_t odd) {
    sum ^= x;
    sum = (sum << bits) | (sum >> (64 - bits));
    return sum * odd;
}
template <class W>
inline W mix_low(W sum, W x) {
    return mix<29>(sum, x, 0x9e3779b97f4a7c15u);
}
template <class W>
inline W mix_high(W sum, W x) {
    return mix<44>(sum, x, 0xd1342543de82ef95u);
}

inline void add(Digest& to, const Digest& from) {
    to.low += from.low;
    to.high += from.high;
}

// Takes in a few numbers, in their order.
inline void mix_numbers(Digest& digest, std::uint64_t a, std::uint64_t b) {
    digest.low = mix_low(mix_low(digest.low, a), b);
    digest.high = mix_high(mix_high(digest.high, b), a);
}

struct DigestSums {
    Words low[kDigestVectors], high[kDigestVectors];

    DigestSums() {
        constexpr Index words = kDigestBlock / 8;
        std::uint64_t first[words];
        for (Index k = 0; k < words; ++k) first[k] = static_cast<std::uint64_t>(k + 1) << 32;
        std::memcpy(low, first, sizeof(low));
        std::memcpy(high, first, sizeof(high));
    }

    void take(const char* block) {
#pragma GCC unroll 4
        for (Index v = 0; v < kDigestVectors; ++v) {
            const Words x = *reinterpret_cast<const UnalignedWords*>(block + v * UNROLLED_BYTES);
            low[v] = mix_low(low[v], x);
            high[v] = mix_high(high[v], x);
        }
    }

    // Before sums are joined all bits of the last block have to reach all bits of its sum.
    void finish() {
        for (Index v = 0; v < kDigestVectors; ++v)
            for (int k = 0; k < 3; ++k) {
                low[v] = mix_low(low[v], Words{});
                high[v] = mix_high(high[v], Words{});
            }
    }
};

// Of chunk number `number` of a matrix. Zeros pad its last block; its length counts, too.
inline Digest digest_of_chunk(const char* data, Index bytes, Index number) {
    DigestSums sums;
    Index at = 0;
    for (; at + kDigestBlock <= bytes; at += kDigestBlock) sums.take(data + at);
    if (at < bytes) {
        char last[kDigestBlock] = {};
        copy(last, data + at, bytes - at);
        sums.take(last);
    }
    sums.finish();
    Words low = sums.low[0], high = sums.high[0];
    for (Index v = 1; v < kDigestVectors; ++v) {
        low = mix_low(low, sums.low[v]);
        high = mix_high(high, sums.high[v]);
    }
    Digest digest;
    mix_numbers(digest, static_cast<std::uint64_t>(number), static_cast<std::uint64_t>(bytes));
    for (Index l = 0; l < UNROLLED_BYTES / 8; ++l) {
        digest.low = mix_low(digest.low, static_cast<std::uint64_t>(low[l]));
        digest.high = mix_high(digest.high, static_cast<std::uint64_t>(high[l]));
    }
    return digest;
}

// The share of thread number `thread` of `count` in the digest of a matrix: digests of threads are added.
inline Digest digest_share(const void* data, Index bytes, Index thread, Index count) {
    const Index chunks = divide_up(bytes, kDigestChunk);
    Digest sum;
    for (Index k = chunks * thread / count; k < chunks * (thread + 1) / count; ++k) {
        const Index at = k * kDigestChunk;
        add(sum, digest_of_chunk(static_cast<const char*>(data) + at, min(kDigestChunk, bytes - at), k));
    }
    return sum;
}

}  // namespace UNROLLED_BUILD
}  // namespace unrolled
