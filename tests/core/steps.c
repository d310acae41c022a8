/* Runs the C interface by commands on standard input, for tests/core/test_c_interface.py. In C99, so that the
 * header is checked to be C99.
 *
 * steps MODEL WEIGHTS N; then letters, each with its arguments in the machine's byte order:
 *   i        writes tokens, inputs, outputs, N, states and their widths, int64
 *   s x      a step of float [N, inputs] or int64 [N]; writes the outputs
 *   g, w x   writes, or reads, all states
 *   r k x    resets the rows int64 [k]; all of them where k is -1
 *   c, a     continues with a copy; with another stream that gets the states of this one
 *   d        writes the description
 * Errors are printed on standard error; the status of a failed step is the exit status.
 */
#include <stdio.h>
#include <stdlib.h>

#include "unrolled.h"

static int64_t inputs, outputs, tokens, N;

static void quit(const char* what, int status) {
    fprintf(stderr, "%s\n", what);
    exit(status);
}

static void check(enum unrolled_status status) {
    if (status != UNROLLED_OK) quit(unrolled_message(status), (int)status);
}

static void* take(int64_t count, size_t bytes) {
    void* found = malloc((size_t)count * bytes + 1);
    if (!found) quit("no memory", 9);
    return found;
}

static void* get(int64_t count, size_t bytes) {
    void* found = take(count, bytes);
    if (fread(found, bytes, (size_t)count, stdin) != (size_t)count) quit("input ends", 9);
    return found;
}

static void put(const void* numbers, int64_t count, size_t bytes) {
    fwrite(numbers, bytes, (size_t)count, stdout);
}

static void put_number(int64_t number) { put(&number, 1, sizeof number); }

static void inform(const unrolled_stream* stream) {
    int64_t k;
    put_number(tokens);
    put_number(inputs);
    put_number(outputs);
    put_number(unrolled_stream_batch(stream));
    put_number(unrolled_stream_states(stream));
    for (k = 0; k < unrolled_stream_states(stream); ++k) put_number(unrolled_stream_state_width(stream, k));
}

static void step(unrolled_stream* stream) {
    void* x = tokens ? get(N, sizeof(int64_t)) : get(N * inputs, sizeof(float));
    float* out = take(N * outputs, sizeof(float));
    check(tokens ? unrolled_stream_step_tokens(stream, x, out) : unrolled_stream_step(stream, x, out));
    put(out, N * outputs, sizeof(float));
    free(x);
    free(out);
}

static void states(unrolled_stream* stream, int written) {
    int64_t k;
    for (k = 0; k < unrolled_stream_states(stream); ++k) {
        const int64_t count = N * unrolled_stream_state_width(stream, k);
        float* numbers = written ? get(count, sizeof(float)) : take(count, sizeof(float));
        check(written ? unrolled_stream_set_state(stream, k, numbers)
                      : unrolled_stream_get_state(stream, k, numbers));
        if (!written) put(numbers, count, sizeof(float));
        free(numbers);
    }
}

static void reset(unrolled_stream* stream) {
    int64_t* count = get(1, sizeof(int64_t));
    int64_t* rows = *count < 0 ? NULL : get(*count, sizeof(int64_t));
    check(unrolled_stream_reset(stream, rows, *count));
    free(rows);
    free(count);
}

int main(int count, char** words) {
    char error[300];
    unrolled_model* model;
    unrolled_stream *stream, *other;
    int letter;
    if (count != 4) quit("usage: steps MODEL WEIGHTS N", 9);
    N = atoi(words[3]);
    model = unrolled_model_load(words[1], (enum unrolled_weights)atoi(words[2]), error, sizeof error);
    if (!model) quit(error, 8);
    stream = unrolled_stream_create(model, N, error, sizeof error);
    if (!stream) quit(error, 8);
    tokens = unrolled_model_tokens(model);
    inputs = unrolled_model_inputs(model);
    outputs = unrolled_model_outputs(model);
    while ((letter = getchar()) != EOF) {
        switch (letter) {
        case 'i': inform(stream); break;
        case 's': step(stream); break;
        case 'g': states(stream, 0); break;
        case 'w': states(stream, 1); break;
        case 'r': reset(stream); break;
        case 'd': fputs(unrolled_model_description(model), stdout); break;
        case 'c':
        case 'a':
            other = letter == 'c' ? unrolled_stream_copy(stream, error, sizeof error)
                                  : unrolled_stream_create(model, N, error, sizeof error);
            if (!other) quit(error, 8);
            if (letter == 'a') check(unrolled_stream_assign(other, stream));
            unrolled_stream_free(stream);
            stream = other;
            break;
        default: quit("unknown letter", 9);
        }
    }
    unrolled_model_free(model);
    unrolled_stream_free(stream);
    return 0;
}
