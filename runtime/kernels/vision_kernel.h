/* What the vision tower computes beside attention: norms, and linear layers. Their inputs and weights are
 * int8 on grids of the engine, or float32 that becomes int16, each row and each output in its own scale. */
#ifndef VISION_KERNEL_H
#define VISION_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#define VISION_COLUMNS 64     /* inputs of a linear layer are padded to a multiple of it */
#define VISION_ROWS 32        /* and its rows to one of this */
#define VISION_BLOCK_ROWS 256 /* rows of one task */
#define VISION_PANELS 16      /* panels of outputs of one task */

/* Rows to int8, as a linear layer takes them; normed before where there is a weight. */
typedef struct {
  const float *rows;          /* [row_count][size] */
  const float *weight, *bias; /* [size] of a layer norm; NULL for none */
  ptrdiff_t row_count, size;
  float epsilon, inverse_scale;
  uint32_t *out;     /* [row_count][row_words or pair_words of size] */
  float *row_scales; /* [row_count], written, and rows are int16; NULL for int8 */
} Quantisation;

/* What becomes of a linear layer's products. */
enum { STORED, ADDED, ACTIVATED };

typedef struct {
  const uint32_t *rows;   /* [row_count, padded][row_words(inputs)] */
  const uint8_t *weights; /* packed */
  const float *scales;    /* [outputs], those of the inputs included */
  const float *bias;      /* [outputs] */
  ptrdiff_t row_count, inputs, outputs;
  int after;
  float *out;             /* [row_count][outputs]: STORED there or ADDED to it */
  uint32_t *activated;    /* GELU of them, ACTIVATED, as rows of the next layer */
  float inverse_scale;    /* of the next layer's inputs */
  const float *row_scales; /* [row_count] of int16 rows, whose GELU goes to `out`; NULL for int8 */
} Linear;

typedef struct {
  ptrdiff_t panel;  /* outputs whose weights lie side by side */
  void (*pack)(const int8_t *weights, ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t panel,
               uint8_t *packed); /* one panel of [inputs][outputs] */
  void (*pack_pairs)(const float *weights, ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t panel,
                     uint8_t *packed, float *scales); /* likewise, and [outputs] scales */
  void (*quantise)(const Quantisation *work, ptrdiff_t first, ptrdiff_t last);
  void (*multiply)(const Linear *work, ptrdiff_t first, ptrdiff_t last, ptrdiff_t first_panel,
                   ptrdiff_t last_panel); /* up to VISION_BLOCK_ROWS from a multiple of VISION_ROWS */
  void (*multiply_pairs)(const Linear *work, ptrdiff_t first, ptrdiff_t last, ptrdiff_t first_panel,
                         ptrdiff_t last_panel); /* likewise, where there are `row_scales` */
} VisionKernel;

static inline ptrdiff_t rounded_up(ptrdiff_t number, ptrdiff_t multiple) {
  return (number + multiple - 1) / multiple * multiple;
}

static inline ptrdiff_t row_words(ptrdiff_t inputs) { return rounded_up(inputs, VISION_COLUMNS) / 4; }

/* Bytes of a packed panel: weights, then what each output's products begin with. */
static inline ptrdiff_t panel_bytes(const VisionKernel *kernel, ptrdiff_t inputs) {
  return (rounded_up(inputs, VISION_COLUMNS) + (ptrdiff_t)sizeof(int32_t)) * kernel->panel;
}

static inline ptrdiff_t pair_words(ptrdiff_t inputs) { return rounded_up(inputs, VISION_COLUMNS) / 2; }

static inline ptrdiff_t pair_panel_bytes(const VisionKernel *kernel, ptrdiff_t inputs) {
  return pair_words(inputs) * 4 * kernel->panel;
}

static inline ptrdiff_t panels(const VisionKernel *kernel, ptrdiff_t outputs) {
  return (outputs + kernel->panel - 1) / kernel->panel;
}
#endif
