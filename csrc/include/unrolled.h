/* Models that `unrolled export` wrote, stepped from C and C++: no Python, no other library.
 *
 * A model is a file's weights and programs; a stream is N sequences (a batch) of it that take one step
 * at a time. All arrays are dense and row-major, float or int64_t. Unless it is said, no pointer may
 * be null. Arrays are read and written during the call alone, and those that are written overlap no
 * other. Letters of shapes: N sequences, I inputs, V tokens.
 *
 * Real time: the functions below "in a step" run on the caller's thread alone, take no memory, take no
 * lock, make no system call and do not wait. They take as long as their arithmetic.
 *
 * Threads: a model may be used by all at once. A stream is for one thread at a time, which need not
 * be the one that made it; who comes while another is in it gets UNROLLED_BUSY at once. Streams of one
 * model share its packed weights and know nothing of one another.
 *
 * No exception leaves a function. Numbers are, to the bit, those of `unrolled.runtime` in Python on
 * the same processor. Inside of layers and lines subnormal numbers count as zero; the caller's mode is
 * restored.
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

/* How weights are kept in memory. Short ones save the time to read them; int8 is multiplied with inputs
 * that are rounded to 16 bits, all other arithmetic is float. */
enum unrolled_weights {
    UNROLLED_AS_IN_FILE = 0,
    UNROLLED_FLOAT32 = 1,
    UNROLLED_BFLOAT16 = 2,
    UNROLLED_INT8 = 3 /* with a scale for each row */
};

/* What a call came to. */
enum unrolled_status {
    UNROLLED_OK = 0,
    UNROLLED_BUSY = 1,     /* another thread is in the stream */
    UNROLLED_ARGUMENT = 2, /* a null pointer, or a number of a state or row that is not there */
    UNROLLED_KIND = 3,     /* numbers for a model that reads tokens, or tokens for one of numbers */
    UNROLLED_TOKEN = 4     /* a token below 0, or not below V */
};

/* A status in words; static, never null. */
const char* unrolled_message(enum unrolled_status status);

/* ---- Models ---- */

/* Reads an exported file. Null where it cannot: then `error`, which has room for so many bytes, holds
 * a sentence that ends in a zero byte, cut to the room. `error` may be null, with room 0.
 * Forecasters, translators and taggers that read how words are spelt are for Python alone. */
unrolled_model* unrolled_model_load(const char* path, enum unrolled_weights weights, char* error,
                                    size_t room);

/* The same from a file's bytes [count], which are copied. */
unrolled_model* unrolled_model_read(const void* bytes, size_t count, enum unrolled_weights weights,
                                    char* error, size_t room);

/* Streams that were made of it stay valid. Null is allowed. */
void unrolled_model_free(unrolled_model* model);

/* V, if the model reads tokens, whole numbers from 0 to V - 1; 0 if it reads numbers. */
int64_t unrolled_model_tokens(const unrolled_model* model);

/* I: how many numbers a sequence reads in a step; 1 if it reads tokens. */
int64_t unrolled_model_inputs(const unrolled_model* model);

/* How many numbers a sequence makes in a step. */
int64_t unrolled_model_outputs(const unrolled_model* model);

/* The file's description, JSON in UTF-8 that ends in a zero byte: vocabulary, labels and all that
 * stands under "codec", the task, the parts and their programs. It lives as long as the model. */
const char* unrolled_model_description(const unrolled_model* model);

/* ---- Streams ---- */

/* N sequences at their beginning. Null, with a sentence in `error` as above, where N is below 1, there
 * is not enough memory, or the model reads in both directions: the second of them begins at the end
 * of a sequence, which is not there yet. */
unrolled_stream* unrolled_stream_create(const unrolled_model* model, int64_t N, char* error, size_t room);

/* A new stream that stands where this one does. Null, with a sentence in `error`, where it cannot be
 * made, or another thread is in the stream. */
unrolled_stream* unrolled_stream_copy(unrolled_stream* stream, char* error, size_t room);

/* Null is allowed. */
void unrolled_stream_free(unrolled_stream* stream);

/* N. */
int64_t unrolled_stream_batch(const unrolled_stream* stream);

/* ---- In a step ---- */

/* One step of all sequences: x [N, I] to out [N, outputs]. Numbers are scaled inside, if the model was
 * trained on scaled ones. */
enum unrolled_status unrolled_stream_step(unrolled_stream* stream, const float* x, float* out);

/* The same with tokens [N]. Where one of them is none, no sequence takes a step. */
enum unrolled_status unrolled_stream_step_tokens(unrolled_stream* stream, const int64_t* tokens, float* out);

/* States before the next step: how many there are, layer by layer, and how many numbers a sequence has
 * of state k; 0 where there is no such state. A mean, maximum or attention over the steps has three. */
int64_t unrolled_stream_states(const unrolled_stream* stream);
int64_t unrolled_stream_state_width(const unrolled_stream* stream, int64_t k);

/* State k [N, width], read and written. */
enum unrolled_status unrolled_stream_get_state(unrolled_stream* stream, int64_t k, float* to);
enum unrolled_status unrolled_stream_set_state(unrolled_stream* stream, int64_t k, const float* from);

/* Sequences of these numbers, rows [count], begin anew; all, where `rows` is null. Where one of the
 * numbers is not there, none does. */
enum unrolled_status unrolled_stream_reset(unrolled_stream* stream, const int64_t* rows, int64_t count);

/* `to` goes on from where `from` is: two streams of one model and N. */
enum unrolled_status unrolled_stream_assign(unrolled_stream* to, unrolled_stream* from);

#ifdef __cplusplus
}
#endif

#endif
