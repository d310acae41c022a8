// Ctrl-C while the core computes: Python's handlers run when the kernels ask.
#pragma once

#include <nanobind/nanobind.h>
#include <pthread.h>

#include "support/threads.h"
#include "python/unlocked.h"

namespace unrolled {

class Interrupt : public Stop {
public:
    Interrupt() : Stop{&Interrupt::put}, caller_(pthread_self()) {}

    // Raises what a handler raised; with the interpreter's lock, after the sweep.
    void raise() const {
        if (over) throw nanobind::python_error();
    }

private:
    // Handlers are for the thread that called.
    static void put(Stop& stop) {
        if (!pthread_equal(pthread_self(), static_cast<Interrupt&>(stop).caller_)) return;
        const Locked lock;
        if (PyErr_CheckSignals() != 0) __atomic_store_n(&stop.over, 1, __ATOMIC_RELAXED);
    }

    pthread_t caller_;
};

}  // namespace unrolled
