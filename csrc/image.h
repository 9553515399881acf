/* Images: checking and building a chip from one. */
#ifndef GLE_IMAGE_H
#define GLE_IMAGE_H

#include "chip.h"

const gle_image_layer *gle_image_layers(const uint32_t *words);
const gle_neuron *gle_image_neurons(const uint32_t *words);

#endif
