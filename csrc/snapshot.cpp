// What is the same for all builds of the classes that snapshots are.
#include "api.h"

namespace unrolled {

Steps::~Steps() = default;
Snapshot::~Snapshot() = default;
Affine::~Affine() = default;

}  // namespace unrolled
