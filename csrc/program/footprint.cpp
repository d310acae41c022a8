// How many numbers a sweep of a program works on.
#include <algorithm>

#include "program/program.h"
#include "support/sizes.h"

namespace unrolled {

Index room_of(const Program& p) {
    constexpr Index kTile = 768;  // of each node, however narrow; as in interpreter.h
    Index widest = kTile, others = p.x_parts * pitch(p.x_width);
    for (const Node& node : p.nodes) widest = std::max(widest, pitch(node.width));
    for (const Product& q : p.products) others += q.parts * pitch(q.width) + pitch(q.source);
    for (Index width : p.vectors) others += pitch(width);
    for (Index width : p.states) others += 3 * pitch(width);
    return static_cast<Index>(p.nodes.size()) * widest + others;
}

void check_room(const Program& p, Index N) {
    Index widest = std::max(p.x_parts * pitch(p.x_width), p.slope_pitch);
    for (const Product& q : p.products)
        widest = std::max(widest, std::max(q.parts * pitch(q.width), pitch(q.source)));
    for (Index w : p.states) widest = std::max(widest, pitch(w));
    for (Index w : p.vectors) widest = std::max(widest, pitch(w));
    product(N, widest);
}

}  // namespace unrolled
