// Work without the interpreter's lock, for threads that may still be at it when the process ends.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

namespace unrolled {

// Runs a call that takes the interpreter's lock. While the interpreter is finalized, CPython before 3.14
// ends a thread that asks for the lock: it unwinds the thread's stack, which no C++ destructor and no
// parallel region allows. Such a thread stops here instead, until the process is gone.
template <class F>
auto take_lock(F call) noexcept -> decltype(call()) {
    try {
        return call();
    } catch (...) {
        for (;;) pause();
    }
}

// Gives up the interpreter's lock within a block.
class Unlocked {
public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;
    ~Unlocked() {
        take_lock([this] { PyEval_RestoreThread(state_); });
    }

private:
    PyThreadState* state_;
};

// Takes the lock within a block of a thread that gave it up.
class Locked {
public:
    Locked() : state_(take_lock([] { return PyGILState_Ensure(); })) {}
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;
    ~Locked() { PyGILState_Release(state_); }

private:
    PyGILState_STATE state_;
};

}  // namespace unrolled
