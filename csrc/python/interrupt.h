// Ctrl-C during a sweep: Python's signal handlers run when the kernels poll.
#pragma once

#include <nanobind/nanobind.h>
#include <pthread.h>

#include "python/interpreter_lock.h"
#include "support/threads.h"

namespace unrolled {

class Interrupt : public CancelFlag {
public:
    Interrupt() : CancelFlag{&Interrupt::poll_signals}, caller_(pthread_self()) {}

    // Raises the exception of a handler. Call it with the interpreter's lock, after the sweep.
    void raise() const {
        if (cancelled) throw nanobind::python_error();
    }

private:
    // Handlers run on the calling thread only.
    static void poll_signals(CancelFlag& cancel) {
        if (!pthread_equal(pthread_self(), static_cast<Interrupt&>(cancel).caller_)) return;
        const AcquiredLock lock;
        if (PyErr_CheckSignals() != 0) __atomic_store_n(&cancel.cancelled, 1, __ATOMIC_RELAXED);
    }

    pthread_t caller_;
};

}  // namespace unrolled
