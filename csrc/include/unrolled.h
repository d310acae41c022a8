/* Steps models written by `unrolled export` from C and C++, without Python or any other library.
 *
 * A model holds the weights and programs of a file; a stream is a batch of N sequences that take one step
 * at a time. All arrays are dense and row-major, float or int64_t. Pointers must not be null unless stated
 * otherwise. Arrays are only accessed during the call, and outputs must not overlap other arrays. Dimensions
 * are named N sequences, I inputs, V tokens.
 *
 * Real time: the functions of the section "Steps" run on the caller's thread only, allocate no memory, take
 * no lock, make no system call and do not wait.
 *
 * Threads: any number of threads may use a model. One thread at a time may use a stream, not necessarily the
 * one that created it; another one gets UNROLLED_BUSY without waiting. Streams of one model share its packed
 * weights and are otherwise independent.
 *
 * No exception leaves a function. Results equal, to the bit, those of `unrolled.runtime` in Python on the
 * same processor. Layers and linear layers treat subnormal numbers as zero; the caller's mode is restored.
 */
#ifndef UNROLLED_H
#define UNROLLED_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct unrolled_model unrolled_model;
typedef struct unrolled_stream unrolled_stream;

/* The format of weights in memory. Low-precision weights are faster to read. int8 weights are multiplied by
 * inputs that are rounded to 16 bits; all other arithmetic is float. */
enum unrolled_weights {
    UNROLLED_AS_IN_FILE = 0,
    UNROLLED_FLOAT32 = 1,
    UNROLLED_BFLOAT16 = 2,
    UNROLLED_INT8 = 3 /* with a scale for each row */
};

/* The result of a call. */
enum unrolled_status {
    UNROLLED_OK = 0,
    UNROLLED_BUSY = 1,     /* another thread uses the stream */
    UNROLLED_ARGUMENT = 2, /* a pointer is null, or a state or row does not exist */
    UNROLLED_KIND = 3,     /* the model reads tokens and got numbers, or vice versa */
    UNROLLED_TOKEN = 4     /* a token is not from 0 to V - 1 */
};

/* The message of a status; static, never null. */
const char* unrolled_message(enum unrolled_status status);

/* ---- Models ---- */

/* Loads an exported file. On failure the result is null, and `error`, a buffer of `room` bytes, has a
 * null-terminated message, truncated to the buffer. `error` may be null, with room 0. Forecasters,
 * translators and taggers that read characters are not supported. */
unrolled_model* unrolled_model_load(const char* path, enum unrolled_weights weights, char* error,
                                    size_t room);

/* The same, from the contents of a file, bytes [count], which are copied. */
unrolled_model* unrolled_model_read(const void* bytes, size_t count, enum unrolled_weights weights,
                                    char* error, size_t room);

/* Frees a model; its streams stay valid. Null is allowed. */
void unrolled_model_free(unrolled_model* model);

/* V, if the model reads tokens, integers from 0 to V - 1; 0 if it reads numbers. */
int64_t unrolled_model_tokens(const unrolled_model* model);

/* I: the numbers that a sequence reads in a step; 1 if it reads tokens. */
int64_t unrolled_model_inputs(const unrolled_model* model);

/* The numbers that a sequence outputs in a step. */
int64_t unrolled_model_outputs(const unrolled_model* model);

/* The description in the file, null-terminated JSON in UTF-8: the codec (vocabulary, labels), the task, the
 * blocks and their programs. Valid until the model is freed. */
const char* unrolled_model_description(const unrolled_model* model);

/* ---- Streams ---- */

/* N sequences in their initial state. Null, with a message in `error` as above, if N is below 1, memory is
 * exhausted, or the model has two directions (the second one starts at the end of a sequence, which is not
 * known yet). */
unrolled_stream* unrolled_stream_create(const unrolled_model* model, int64_t N, char* error, size_t room);

/* A new stream in the same state. Null, with a message in `error`, if it cannot be created, or another thread
 * uses the stream. */
unrolled_stream* unrolled_stream_copy(unrolled_stream* stream, char* error, size_t room);

/* Frees a stream. Null is allowed. */
void unrolled_stream_free(unrolled_stream* stream);

/* N, the number of sequences. */
int64_t unrolled_stream_batch(const unrolled_stream* stream);

/* ---- Steps ---- */

/* One step of all sequences, from x [N, I] to out [N, outputs]. If the model was trained on scaled inputs,
 * x is scaled here. */
enum unrolled_status unrolled_stream_step(unrolled_stream* stream, const float* x, float* out);

/* The same with tokens [N]. If one of them is invalid, no sequence takes a step. */
enum unrolled_status unrolled_stream_step_tokens(unrolled_stream* stream, const int64_t* tokens, float* out);

/* The number of states of a stream, counted layer by layer, and the width of state k; 0 if there is no such
 * state. A mean, maximum or attention over the steps has three states. */
int64_t unrolled_stream_states(const unrolled_stream* stream);
int64_t unrolled_stream_state_width(const unrolled_stream* stream, int64_t k);

/* Reads and writes state k [N, width]. */
enum unrolled_status unrolled_stream_get_state(unrolled_stream* stream, int64_t k, float* to);
enum unrolled_status unrolled_stream_set_state(unrolled_stream* stream, int64_t k, const float* from);

/* Resets the sequences rows [count] to their initial state; all, if `rows` is null. If a row does not exist,
 * none is reset. */
enum unrolled_status unrolled_stream_reset(unrolled_stream* stream, const int64_t* rows, int64_t count);

/* Copies the state of `from` to `to`; both must be streams of the same model with the same N. */
enum unrolled_status unrolled_stream_assign(unrolled_stream* to, unrolled_stream* from);

#ifdef __cplusplus
}
#endif

#endif
