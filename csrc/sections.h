/* The sections of an image: where they are, whether they may be. */
#ifndef GLE_SECTIONS_H
#define GLE_SECTIONS_H

#include "chip.h"

enum { GLE_ALL_SECTIONS = GLE_HAS_ROWS | GLE_HAS_ANALOG | GLE_HAS_INPUTS | GLE_HAS_GAINS |
                          GLE_HAS_MASKS | GLE_HAS_SOURCES | GLE_HAS_FEEDBACK };

/* In words from the start of the image; those that are absent are empty. */
typedef struct {
    size_t sources, feedback, rows, analog, inputs, gains, masks, end;
} gle_sections;

static inline size_t gle_gain_words(int32_t m) { return ((size_t)m + 1) / 2; }
static inline size_t gle_mask_words(int32_t m) { return ((size_t)m + 31) / 32; }

/* A layer's sources in an image, NULL for a chain. */
const uint32_t *gle_image_sources(const uint32_t *words, int32_t l);
/* Inputs of a layer. */
int32_t gle_image_fan_in(const uint32_t *words, int32_t l);
const gle_feedback *gle_image_feedback(const uint32_t *words);
/* Whether a layer has feedback weights, and of which shape. */
int gle_image_back(const uint32_t *words, int32_t l, int32_t *n, int32_t *m);

/* Whether sources and feedback, which decide on where the others are, may be so; `count`
 * words are there in all, and heads of layers that are allowed. */
int gle_sections_first_ok(const uint32_t *words, size_t count);
/* `total` neurons in all layers. */
gle_sections gle_sections_of(const uint32_t *words, size_t total);
int gle_sections_ok(const uint32_t *words, const gle_sections *s, size_t total);
/* Whether the products of all layers have a shift that the kernels can do. */
int gle_image_shifts_ok(const uint32_t *words, const gle_sections *s);

#endif
