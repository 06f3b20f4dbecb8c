/* What the vision tower computes beside attention: norms, and linear layers. Their inputs and weights are
 * int8 on grids of the engine, or float32 that becomes int16, each row and each output in its own scale. */
#ifndef VISION_KERNEL_H
#define VISION_KERNEL_H
#include <stddef.h>
#include <stdint.h>

#define VISION_COLUMNS 64     /* inputs of a linear layer are padded to a multiple of it */
#define VISION_ROWS 32        /* and its rows to one of this */
#define VISION_BLOCK_ROWS 256 /* rows of one task */
#define VISION_PANELS 16      /* panels of outputs of one task, at most */

/* Rows to int8, as a linear layer takes them; normed before where there is a weight. */
typedef struct {
  const float *rows;          /* [row_count][size] */
  const float *weight, *bias; /* [size] of a layer norm; NULL for none */
  ptrdiff_t row_count, size;
  float epsilon, inverse_scale;
  uint32_t *out;     /* [row_count][row_stride or pair_words of size], zeros before they are first written */
  float *row_scales; /* [row_count], written, and rows are int16; NULL for int8 */
} Quantisation;

/* What becomes of a linear layer's products. */
enum { STORED, ADDED, ACTIVATED };

typedef struct {
  const uint32_t *rows;   /* [row_count, padded][row_stride of inputs] */
  const uint8_t *weights; /* packed */
  const float *scales;    /* [outputs], those of the inputs included */
  const float *bias;      /* [outputs] */
  ptrdiff_t row_count, inputs, outputs;
  int after;
  float *out;             /* [row_count][outputs]: STORED there or ADDED to it */
  uint32_t *activated;    /* GELU of them, ACTIVATED, as rows of the next layer */
  float inverse_scale;    /* of the next layer's inputs */
  const float *row_scales; /* [row_count] of int16 rows, whose GELU goes to `out`; NULL for int8 */
  int32_t *notes;          /* [row_count, padded][note_words], where the kernel notes rows; NULL elsewhere */
  int32_t *least_limits;   /* then, of groups of inputs, at most one for each 16 */
} Linear;

typedef struct {
  ptrdiff_t panel; /* outputs whose weights lie side by side */
  ptrdiff_t notes; /* words that a row of int8 holds beside each 16 of its inputs */
  void (*pack)(const int8_t *weights, ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t panel,
               uint8_t *packed); /* one panel of [inputs][outputs] */
  void (*pack_pairs)(const float *weights, ptrdiff_t inputs, ptrdiff_t outputs, ptrdiff_t panel,
                     uint8_t *packed, float *scales); /* likewise, and [outputs] scales */
  void (*least_limits)(const Linear *work, int32_t *least); /* before rows are noted */
  void (*note)(const Linear *work, ptrdiff_t first, ptrdiff_t last); /* rows in int8; NULL: no need */
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

/* Words from a row of int8 to the next, which holds `notes` beside each 16 inputs. */
static inline ptrdiff_t row_stride(ptrdiff_t inputs, ptrdiff_t notes) {
  return row_words(inputs) / 4 * (4 + notes);
}

/* Bytes of `panel` packed outputs: weights, then what each output's products begin with, then, where rows
 * have notes, a limit for each 16 inputs at most, padded. */
static inline ptrdiff_t panel_bytes(ptrdiff_t inputs, ptrdiff_t panel, ptrdiff_t notes) {
  ptrdiff_t limits = notes ? rounded_up(row_words(inputs) / 4, 16) : 0;
  ptrdiff_t words = (row_words(inputs) + 1) * panel + limits;
  return words * (ptrdiff_t)sizeof(int32_t);
}

/* Numbers that may be noted of a row: a few, and two for each word and group of words. */
#define NOTE_HEAD 3
static inline ptrdiff_t note_words(ptrdiff_t inputs) { return NOTE_HEAD + row_words(inputs) / 4 * 10; }

static inline ptrdiff_t pair_words(ptrdiff_t inputs) { return rounded_up(inputs, VISION_COLUMNS) / 2; }

static inline ptrdiff_t pair_panel_bytes(const VisionKernel *kernel, ptrdiff_t inputs) {
  return pair_words(inputs) * 4 * kernel->panel;
}

static inline ptrdiff_t panels(const VisionKernel *kernel, ptrdiff_t outputs) {
  return (outputs + kernel->panel - 1) / kernel->panel;
}
#endif
