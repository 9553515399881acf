#if !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* sigset_t */
#endif
#include "crew.h"

#if !defined(_WIN32)

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "../neurons.h"

enum { LOOKS = 4000, /* before a thread lets others have its core */
       ROWS = 16,    /* a piece is a multiple of: tiles, and neurons that share a random word */
       /* multiply-accumulates that are worth sharing: 20 us and more, of which some 5 go into
        * asking and waiting on a virtual machine of two cores; and those that take as long as a
        * neuron in one stream */
       WORTH = 1 << 21, NEURON = 1 << 6 };

struct crew {
    gle_kernels table;
    gle_stored_kernels stored;
    const gle_kernels *alone;
    crew_work *work;
    void *what;
    int32_t threads, started;
    int64_t least; /* that is shared */
    /* written by one side and looked at by the other: a line of its own each */
    _Alignas(64) atomic_uint asked;
    _Alignas(64) atomic_uint done;
    pthread_t thread[CREW_MOST];
    uint32_t *hash[CREW_MOST]; /* [columns] */
};

typedef struct {
    crew *c;
    int32_t part;
} member;

/* Whose kernels this thread runs: a kernel is told of a layer, and not of a chip. */
static _Thread_local crew *current;

static void wait_a_little(uint32_t *looks)
{
    if (++*looks > LOOKS) {
        sched_yield();
        return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void *serve(void *given)
{
    const member m = *(member *)given;
    crew *const c = m.c;
    uint32_t seen = 0;

    free(given);
    for (;;) {
        uint32_t looks = 0, asked;
        while ((asked = atomic_load_explicit(&c->asked, memory_order_acquire)) == seen) {
            wait_a_little(&looks);
        }
        seen = asked;
        if (c->work == NULL) {
            return NULL;
        }
        c->work(c->what, m.part, c->threads);
        atomic_fetch_add_explicit(&c->done, 1, memory_order_release);
    }
}

static void ask(crew *c, crew_work *work, void *what)
{
    c->work = work;
    c->what = what;
    atomic_store_explicit(&c->done, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->asked, 1, memory_order_release);
}

void crew_share(int64_t size, crew_work *work, void *what)
{
    crew *const c = current;
    uint32_t looks = 0;

    if (c == NULL || size < c->least) {
        work(what, 0, 1);
        return;
    }
    ask(c, work, what);
    work(what, 0, c->threads);
    while (atomic_load_explicit(&c->done, memory_order_acquire) != (uint32_t)c->started) {
        wait_a_little(&looks);
    }
}

int32_t crew_row(int32_t n, int32_t part, int32_t parts)
{
    const int32_t blocks = (n + ROWS - 1) / ROWS;
    const int32_t row = (int32_t)((int64_t)blocks * part / parts) * ROWS;
    return row < n ? row : n;
}

static int64_t macs(int32_t n, int32_t m, int32_t columns) { return (int64_t)n * m * columns; }

/* A layer of which only rows first .. last are to be seen. */
static gle_layer some_rows(const gle_layer *whole, int32_t first, int32_t last, int32_t columns)
{
    const size_t at = (size_t)first * (size_t)columns;
    gle_layer y = *whole;

    y.n = last - first;
    y.first += first;
    y.w += (size_t)first * (size_t)y.stride;
    y.bias += first;
    y.neurons += first;
    y.rows = y.rows ? y.rows + first : NULL;
    y.analog = y.analog ? y.analog + first : NULL;
    y.u += at;
    y.v += at;
    y.uhat = y.uhat ? y.uhat + at : NULL;
    y.r += at;
    y.e += at;
    y.dphi += at;
    return y;
}

/* --- W r and W^T e ------------------------------------------------------------------------ */

typedef struct {
    int32_t *out;
    const int16_t *w, *pairs;
    int32_t stride, n, m, columns, shift, fits;
    const uint32_t *rows;
    const gle_layer *layer; /* with stored weights; `first` then is that of its columns */
    int32_t first, streams, largest;
} product_job;

static void product_piece(void *what, int32_t part, int32_t parts)
{
    const product_job *y = what;
    const int32_t a = crew_row(y->n, part, parts), b = crew_row(y->n, part + 1, parts);

    if (a < b) {
        current->alone->product(y->out + (size_t)a * (size_t)y->columns,
                                y->w + (size_t)a * (size_t)y->stride, y->stride, b - a, y->m,
                                y->pairs, y->columns, y->shift, y->rows ? y->rows + a : NULL,
                                y->fits);
    }
}

static void product(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                    const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                    int32_t fits)
{
    product_job y = {out, w, pairs, stride, n, m, columns, shift, fits, rows, NULL, 0, 0, 0};

    crew_share(macs(n, m, columns), product_piece, &y);
}

static void forward_piece(void *what, int32_t part, int32_t parts)
{
    const product_job *y = what;
    const int32_t a = crew_row(y->n, part, parts), b = crew_row(y->n, part + 1, parts);
    const gle_layer some = some_rows(y->layer, a, b, y->columns);

    if (a < b) {
        current->alone->stored->forward(y->out + (size_t)a * (size_t)y->columns, &some, y->pairs,
                                        y->columns, y->streams, y->shift, y->largest);
    }
}

static void forward(int32_t *out, const gle_layer *layer, const int16_t *pairs, int32_t columns,
                    int32_t streams, int32_t shift, int32_t largest)
{
    product_job y = {out,   NULL, pairs, 0,     layer->n, layer->m, columns,
                     shift, 0,    NULL,  layer, 0,        streams,  largest};

    crew_share(macs(layer->n, layer->m, columns), forward_piece, &y);
}

static void back_piece(void *what, int32_t part, int32_t parts)
{
    const product_job *y = what;
    const int32_t a = crew_row(y->n, part, parts), b = crew_row(y->n, part + 1, parts);

    if (a < b) {
        current->alone->stored->back(y->out + (size_t)a * (size_t)y->columns, y->layer,
                                     y->first + a, b - a, y->pairs, y->columns, y->streams,
                                     y->shift, y->largest);
    }
}

static void back(int32_t *out, const gle_layer *layer, int32_t first, int32_t count,
                 const int16_t *pairs, int32_t columns, int32_t streams, int32_t shift,
                 int32_t largest)
{
    product_job y = {out,   NULL, pairs, 0,     count, layer->n, columns,
                     shift, 0,    NULL,  layer, first, streams,  largest};

    crew_share(macs(count, layer->n, columns), back_piece, &y);
}

/* --- e r^T, and what is learned from it ---------------------------------------------------- */

typedef struct {
    int32_t *out;
    const int16_t *e, *turned;
    int32_t rows, stride, m, columns, shift;
} outer_job;

static void outer_piece(void *what, int32_t part, int32_t parts)
{
    const outer_job *y = what;
    const int32_t a = crew_row(y->rows, part, parts), b = crew_row(y->rows, part + 1, parts);

    if (a < b) {
        current->alone->outer(y->out + (size_t)a * (size_t)y->stride,
                              y->e + (size_t)a * (size_t)y->columns, b - a, y->turned, y->stride,
                              y->m, y->columns, y->shift);
    }
}

static void outer(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                  int32_t stride, int32_t m, int32_t columns, int32_t shift)
{
    outer_job y = {out, e, turned, rows, stride, m, columns, shift};

    crew_share(macs(rows, m, columns), outer_piece, &y);
}

typedef struct {
    gle_layer *layer;
    const gle_learning *job;
    gle_update_count count[CREW_MOST];
    int32_t learned[CREW_MOST];
} learn_job;

static void learn_piece(void *what, int32_t part, int32_t parts)
{
    learn_job *y = what;
    const int32_t n = y->layer->n;
    const int32_t a = crew_row(n, part, parts), b = crew_row(n, part + 1, parts);
    gle_layer some = some_rows(y->layer, a, b, y->job->columns);
    gle_learning job = *y->job;

    job.first += a;
    job.sums += 2 * a;
    y->learned[part] = a == b || current->alone->learn(&some, &job, &y->count[part]);
}

/* A kernel learns or does not by what all rows have in common: so do all pieces. */
static int32_t learn(gle_layer *layer, const gle_learning *job, gle_update_count *count)
{
    const int32_t n = layer->n, parts = current->threads;
    const int64_t size = macs(n, layer->m, job->columns);
    learn_job y = {layer, job, {{0, 0, 0}}, {0}};

    if (size < current->least) {
        return current->alone->learn(layer, job, count);
    }
    crew_share(size, learn_piece, &y);
    if (!y.learned[0]) {
        return 0;
    }
    for (int32_t k = 0; k < parts; k++) {
        const int32_t a = crew_row(n, k, parts), b = crew_row(n, k + 1, parts);
        count->asked += y.count[k].asked;
        count->under += y.count[k].under;
        count->clipped += y.count[k].clipped;
        for (int32_t i = a; i < b; i++) {
            job->sums[i] = job->sums[a + i];
        }
    }
    return 1;
}

/* --- neurons -------------------------------------------------------------------------------- */

typedef struct {
    const gle_neuron_job *job;
    gle_counters counters[CREW_MOST];
    gle_window window[CREW_MOST];
} neuron_work;

static void neuron_piece(void *what, int32_t part, int32_t parts)
{
    neuron_work *y = what;
    const int32_t n = y->job->layer->n, columns = y->job->columns;
    const int32_t a = crew_row(n, part, parts), b = crew_row(n, part + 1, parts);
    const size_t at = (size_t)a * (size_t)columns;
    gle_layer some = some_rows(y->job->layer, a, b, columns);
    gle_neuron_job job = *y->job;

    some.counters = y->counters[part];
    some.window = y->window[part];
    job.layer = &some;
    job.sums += at;
    job.above += at;
    if (part > 0) {
        job.hash = current->hash[part];
        for (int32_t k = 0; k < columns; k++) {
            job.hash[k] = 0;
        }
    }
    if (a < b) {
        current->alone->neurons(&job);
    }
    y->counters[part] = some.counters;
    y->window[part] = some.window;
}

static void neurons(const gle_neuron_job *job)
{
    gle_layer *const layer = job->layer;
    const int64_t size = macs(layer->n, NEURON, job->columns);
    neuron_work y = {job, {{0}}, {{0}}};

    /* neighbours share random words, which stand in one place */
    if (job->noisy || size < current->least) {
        current->alone->neurons(job);
        return;
    }
    y.counters[0] = layer->counters;
    y.window[0] = layer->window;
    crew_share(size, neuron_piece, &y);
    for (int32_t k = 1; k < current->threads; k++) {
        const gle_counters *c = &y.counters[k];
        const gle_window *w = &y.window[k];
        y.counters[0].steps += c->steps;
        y.counters[0].sat_x += c->sat_x;
        y.counters[0].sat_uhat += c->sat_uhat;
        y.counters[0].sat_r += c->sat_r;
        y.counters[0].sat_inst += c->sat_inst;
        y.counters[0].sat_e += c->sat_e;
        y.counters[0].under_e += c->under_e;
        y.window[0].samples += w->samples;
        y.window[0].sat_e += w->sat_e;
        y.window[0].sat_r += w->sat_r;
        y.window[0].half_e += w->half_e;
        y.window[0].peak_r = w->peak_r > y.window[0].peak_r ? w->peak_r : y.window[0].peak_r;
        for (int32_t b = 0; b < job->columns; b++) {
            job->hash[b] += current->hash[k][b];
        }
    }
    layer->counters = y.counters[0];
    layer->window = y.window[0];
}

/* --- the crew ------------------------------------------------------------------------------- */

static void *work_of(void *given)
{
    current = ((member *)given)->c;
    return serve(given);
}

/* Signals are for the thread that asked: Python notes them there. */
static int start(crew *c, int32_t part)
{
    member *m = malloc(sizeof *m);
    sigset_t every, before;
    int failed;

    if (m == NULL) {
        return 0;
    }
    *m = (member){c, part};
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    failed = pthread_create(&c->thread[part], NULL, work_of, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        free(m);
    }
    return !failed;
}

static void dismiss(crew *c)
{
    ask(c, NULL, NULL);
    for (int32_t k = 1; k <= c->started; k++) {
        pthread_join(c->thread[k], NULL);
    }
    free(c->hash[1]);
    free(c);
}

static int64_t largest(const gle_chip *chip)
{
    int64_t most = 0;

    for (int32_t l = 0; l < chip->layers; l++) {
        const int64_t size = macs(chip->layer[l].n, chip->layer[l].m, chip->columns);
        most = size > most ? size : most;
    }
    return most;
}

crew *crew_begin(gle_chip *chip, int32_t threads)
{
    const size_t columns = (size_t)chip->columns;
    const int32_t wanted = threads < 0 ? -threads : threads;
    const int64_t least = threads < 0 ? 0 : WORTH;
    crew *c;

    if (wanted < 2 || chip->columns == 1 || largest(chip) < least ||
        posix_memalign((void **)&c, 64, sizeof *c) != 0) {
        return NULL;
    }
    *c = (crew){.alone = chip->kernels, .least = least};
    c->threads = wanted < CREW_MOST ? wanted : CREW_MOST;
    c->hash[1] = calloc((size_t)c->threads * columns, sizeof **c->hash);
    while (c->hash[1] != NULL && c->started < c->threads - 1 && start(c, c->started + 1)) {
        c->started++;
    }
    if (c->started < c->threads - 1) {
        dismiss(c);
        return NULL;
    }
    for (int32_t k = 2; k < c->threads; k++) {
        c->hash[k] = c->hash[k - 1] + columns;
    }
    c->table = *c->alone;
    c->table.product = product;
    c->table.outer = outer;
    c->table.neurons = neurons;
    if (c->alone->learn != NULL) {
        c->table.learn = learn;
    }
    if (c->alone->stored != NULL) {
        c->stored = (gle_stored_kernels){c->alone->stored->reads, forward, back,
                                         c->alone->stored->always};
        c->table.stored = &c->stored;
    }
    chip->kernels = &c->table;
    current = c;
    return c;
}

void crew_end(crew *c, gle_chip *chip)
{
    if (c != NULL) {
        chip->kernels = c->alone;
        current = NULL;
        dismiss(c);
    }
}

#else

crew *crew_begin(gle_chip *chip, int32_t threads)
{
    (void)chip;
    (void)threads;
    return NULL;
}

void crew_end(crew *c, gle_chip *chip)
{
    (void)c;
    (void)chip;
}

void crew_share(int64_t size, crew_work *work, void *what)
{
    (void)size;
    work(what, 0, 1);
}

int32_t crew_row(int32_t n, int32_t part, int32_t parts) { return part < parts ? 0 : n; }

#endif
