/* Kernels for one stream, where the vectors of a batch would have nothing to hold. */
#ifndef GLE_SINGLE_H
#define GLE_SINGLE_H

#include "chip.h"

/* What a single stream multiplies with: a copy of what the array sees where synapses differ
 * and there is room, else what is stored, shifted on the way. */
static inline const int16_t *gle_single_weights(const gle_layer *layer) { return layer->seen; }

static inline int32_t gle_single_shift(const gle_layer *layer)
{
    return layer->seen == layer->w ? layer->image->w_shift : 0;
}

/* seen[m] of a row, as see.inc has it. */
void gle_see_one(int16_t *seen, const int16_t *w, int32_t m, const gle_seeing *how,
                 const uint32_t *gains);

#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#if GLE_ALIGN >= 64
#error "a microcontroller is built with -DGLE_ALIGN=8: rows of weights in pairs, and their bounds"
#endif
void gle_product_one_dsp(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift);
void gle_product_one_back_dsp(int32_t *out, const gle_layer *layer, int32_t shift);
void gle_learn_one_dsp(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                       int32_t shift, uint32_t root, gle_update_count *count);
/* All of a layer, whose rows have things in common; scratch[4 stride]. */
void gle_learn_layer_dsp(gle_layer *layer, const int16_t *x, const gle_update *how, int32_t shift,
                         int32_t *scratch, gle_update_count *count);
#define GLE_LEARN_LAYER gle_learn_layer_dsp
void gle_see_one_dsp(int16_t *seen, const int16_t *w, int32_t m, const gle_seeing *how,
                     const uint32_t *gains);
#define GLE_ONE(name) gle_##name##_dsp
#else
#define GLE_ONE(name) gle_##name
#endif

#if defined(__x86_64__) && !defined(GLE_SCALAR_ONLY)
void gle_product_one_avx2(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift);
void gle_product_one_back_avx2(int32_t *out, const gle_layer *layer, int32_t shift);
void gle_learn_one_avx2(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                        int32_t shift, uint32_t root, gle_update_count *count);
/* matvec_avx2.c: any rounding, as update.inc has it. */
void gle_learn_one_any_avx2(int16_t *w, int32_t e, const int16_t *x, int32_t m,
                            const gle_update *how, int32_t shift, uint32_t root,
                            gle_update_count *count);
void gle_product_one_vnni(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift);
void gle_product_one_back_vnni(int32_t *out, const gle_layer *layer, int32_t shift);
void gle_learn_one_vnni(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                        int32_t shift, uint32_t root, gle_update_count *count);
int32_t gle_learn_vnni(gle_layer *layer, const gle_learning *job, gle_update_count *count);
int32_t gle_learn_amx(gle_layer *layer, const gle_learning *job, gle_update_count *count);
/* matvec_vnni.c */
void gle_product_vnni(int32_t *out, const int16_t *w, int32_t stride, int32_t n, int32_t m,
                      const int16_t *pairs, int32_t columns, int32_t shift, const uint32_t *rows,
                      int32_t fits);
/* Memory that is brought nearer while something else is multiplied: a cache line for each pair,
 * `pair` bytes behind that before; in tiles but the first, from `half` bytes on. */
typedef struct {
    const char *at;
    size_t half, pair;
} gle_ahead;
/* Rows of w begin `stride` behind one another, pairs `along`. `fits`: as of a product; where it is
 * 0, sums of `chunk` pairs fit int32 and leave room for 16 bits. Only the first `some` columns. */
void gle_product_tiles_vnni(int32_t *out, const int16_t *w, int32_t stride, int32_t along,
                            int32_t n, int32_t m, const int16_t *pairs, int32_t columns,
                            int32_t some, int32_t shift, const uint32_t *rows, int32_t fits,
                            int32_t chunk, const gle_ahead *ahead);
void gle_outer_vnni(int32_t *out, const int16_t *e, int32_t rows, const int16_t *turned,
                    int32_t stride, int32_t m, int32_t columns, int32_t shift);
void gle_vary_vnni(int32_t *rows, int32_t stride, int32_t count, int32_t m, const gle_update *how,
                   uint32_t first);
uint32_t gle_read_out_vnni(int32_t *to, const int16_t *r, int32_t count, const gle_reader *how,
                           uint32_t stream, int32_t i);
/* few_vnni.c: streams of a last vector, the first of which `pairs`, x and `out` begin with. Those
 * up to a multiple of four are read and written, too, and `out`, whose rows have `columns`, gets 0
 * behind them, to the end of the vector. Rows are read up to a multiple of four, and turned
 * streams up to GLE_FEW_MOST. */
enum { GLE_FEW_MOST = 8 };
void gle_few_turned_vnni(int16_t *turned, int32_t pitch, const int16_t *pairs, int32_t m,
                         int32_t columns);
/* As rows [rows][pitch] of the array, m of each and 0 behind them, by `turned`; `fits`: all sums
 * are known to fit int32. x is at most `largest`. */
void gle_few_rows_vnni(int32_t *out, int32_t columns, const int16_t *w, int32_t pitch,
                       int32_t rows, int32_t m, const int16_t *x, int32_t streams, int32_t shift,
                       const uint32_t *more, int32_t fits, int32_t largest);
/* As columns w[n / 2][16][2] of the array, `some` of them, by pairs. */
void gle_few_columns_vnni(int32_t *out, int32_t columns, const int16_t *w, int32_t some, int32_t n,
                          const int16_t *x, int32_t streams, int32_t shift, int32_t chunk);
/* stored_vnni.c */
extern const gle_stored_kernels gle_stored_vnni;
/* pack_vnni.c */
int32_t gle_pairs_vnni(int16_t *pairs, const int16_t *x, int32_t n, int32_t columns);
void gle_turned_vnni(int16_t *turned, const int16_t *x, int32_t n, int32_t stride,
                     int32_t columns);
int32_t gle_see_vnni(int16_t *seen, const int16_t *w, int32_t m, const gle_seeing *how,
                     const uint32_t *gains, int32_t *columns);
/* learn_one_vnni.c */
int32_t gle_learn_stream_vnni(gle_layer *layer, const gle_learning *job, gle_update_count *count);
int32_t gle_learn_biases_vnni(gle_layer *layer, const int32_t *sums, int32_t shift, gle_key key);
/* softmax_vnni.c */
int32_t gle_target_error_vnni(const gle_chip *chip, const gle_layer *top, const int16_t *labels,
                              int32_t *above);
void gle_update_vnni(int16_t *w, const int32_t *gradient, int32_t m, const gle_update *how,
                     int32_t shift, uint32_t root, gle_update_count *count);
/* matvec_vnni.c: any rounding, as update.inc has it. */
void gle_update_wide(int16_t *w, const int32_t *gradient, int32_t m, const gle_update *how,
                     int32_t shift, uint32_t root, gle_update_count *count);
void gle_learn_one_wide(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                        int32_t shift, uint32_t root, gle_update_count *count);

/* A table of AVX-512: what AMX does differently, and all else. */
#define GLE_AVX512_TABLE(name, product, outer, pairs, turned, learn, stored)                     \
    {                                                                                            \
        name, product, outer, pairs, turned, gle_update_vnni, gle_vary_vnni,                     \
            gle_product_one_vnni, gle_product_one_back_vnni, gle_learn_one_vnni, learn,          \
            gle_see_vnni, gle_read_out_vnni, gle_turn_avx2 /* bound by the memory */,            \
            gle_neurons_vnni, &gle_rules_vnni, gle_learn_biases_vnni, gle_target_error_vnni,     \
            stored                                                                               \
    }
#endif

#if defined(__aarch64__) && !defined(GLE_SCALAR_ONLY)
void gle_product_one_neon(int32_t *out, const gle_layer *layer, const int16_t *x, int32_t shift);
void gle_product_one_back_neon(int32_t *out, const gle_layer *layer, int32_t shift);
void gle_learn_one_neon(int16_t *w, int32_t e, const int16_t *x, int32_t m, const gle_update *how,
                        int32_t shift, uint32_t root, gle_update_count *count);
int32_t gle_learn_stream_neon(gle_layer *layer, const gle_learning *job, gle_update_count *count);
/* matvec_neon.c: any rounding, as update.inc has it. */
void gle_learn_one_any_neon(int16_t *w, int32_t e, const int16_t *x, int32_t m,
                            const gle_update *how, int32_t shift, uint32_t root,
                            gle_update_count *count);
#endif

#endif
