// Work without the interpreter's lock, also on threads that still run when the process ends.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

namespace unrolled {

// Runs a call that acquires the interpreter's lock. During finalization CPython before 3.14 ends a thread
// that asks for the lock by unwinding its stack, which neither destructors nor parallel regions allow. Such a
// thread stops here until the process ends.
template <class F>
auto take_lock(F call) noexcept -> decltype(call()) {
    try {
        return call();
    } catch (...) {
        for (;;) pause();
    }
}

// Releases the interpreter's lock while it exists.
class ReleasedLock {
public:
    ReleasedLock() : state_(PyEval_SaveThread()) {}
    ReleasedLock(const ReleasedLock&) = delete;
    ReleasedLock& operator=(const ReleasedLock&) = delete;
    ~ReleasedLock() {
        take_lock([this] { PyEval_RestoreThread(state_); });
    }

private:
    PyThreadState* state_;
};

// Acquires the lock while it exists, on a thread that released it.
class AcquiredLock {
public:
    AcquiredLock() : state_(take_lock([] { return PyGILState_Ensure(); })) {}
    AcquiredLock(const AcquiredLock&) = delete;
    AcquiredLock& operator=(const AcquiredLock&) = delete;
    ~AcquiredLock() { PyGILState_Release(state_); }

private:
    PyGILState_STATE state_;
};

}  // namespace unrolled
