// The sizes of the buffers of a sweep.
#include <algorithm>

#include "program/program.h"
#include "support/sizes.h"

namespace unrolled {

Index step_footprint(const Program& p) {
    constexpr Index kTile = 768;  // at least, of each node; kTile of interpreter.h
    Index widest = kTile, others = p.x_parts * pitch(p.x_width);
    for (const Node& node : p.nodes) widest = std::max(widest, pitch(node.width));
    for (const Product& q : p.products) others += q.parts * pitch(q.width) + pitch(q.source);
    for (Index width : p.vectors) others += pitch(width);
    for (Index width : p.states) others += 3 * pitch(width);
    return static_cast<Index>(p.nodes.size()) * widest + others;
}

void check_buffer_sizes(const Program& p, Index N) {
    Index widest = std::max(p.x_parts * pitch(p.x_width), p.product_gradient_pitch);
    for (const Product& q : p.products)
        widest = std::max(widest, std::max(q.parts * pitch(q.width), pitch(q.source)));
    for (Index w : p.states) widest = std::max(widest, pitch(w));
    for (Index w : p.vectors) widest = std::max(widest, pitch(w));
    checked_product(N, widest);
}

}  // namespace unrolled
