/* The linear kernel: weights of 4 or 8 bits in blocks, few rows and many. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef struct {
  int64_t rows, inputs, outputs, bits, block;
  int is_gated;
  int is_extreme; /* inputs and weights are as large as they get, of signs that make sums so */
} Case;

static const Case cases[] = {
    {1, 16, 1, 4, 16, 0, 0}, {1, 256, 70, 4, 64, 0, 0}, {2, 192, 130, 8, 32, 0, 0}, {6, 512, 33, 8, 128, 0, 0},
    {7, 160, 40, 4, 32, 0, 0}, {23, 256, 45, 4, 128, 0, 0}, {13, 48, 65, 8, 16, 0, 0}, {40, 512, 20, 8, 256, 0, 0},
    {2, 96, 34, 4, 32, 1, 0}, {9, 96, 134, 4, 32, 1, 0}, {24, 64, 256, 8, 64, 1, 0}, {10, 1024, 70, 8, 512, 0, 0},
    {12, 2048, 5, 4, 1024, 0, 0}, {14, 512, 66, 4, 64, 0, 1}, {14, 512, 66, 4, 512, 0, 1}, {14, 512, 66, 8, 512, 0, 1},
    {5, 512, 66, 4, 512, 0, 1}, {5, 512, 66, 8, 64, 0, 1},
};

/* The number of a bfloat16. */
static float number_of(uint16_t upper_half) {
  uint32_t bits = (uint32_t)upper_half << 16;
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

/* y[rows][outputs]; inputs are rounded block by block, as the kernel documents. */
static void multiply(const Product *p, double *y) {
  const LinearLayer *layer = &p->layer;
  int64_t blocks = blocks_of(layer), bytes = layer->inputs * layer->bits / 8;
  for (int64_t r = 0; r < p->rows; r++)
    for (int64_t n = 0; n < layer->outputs; n++) {
      double sum = 0;
      for (int64_t b = 0; b < blocks; b++) {
        const float *x = p->x + r * layer->inputs + b * layer->block;
        float largest = 0;
        for (int64_t i = 0; i < layer->block; i++) largest = fmaxf(largest, fabsf(x[i]));
        float inverse = largest > 0 ? 127 / largest : 0;
        int64_t products = 0;
        for (int64_t i = 0; i < layer->block; i++) {
          int64_t place = b * layer->block + i;
          int weight = p->weights[n * bytes + place * layer->bits / 8];
          if (layer->bits == 4) weight = (place % 2 ? weight >> 4 : weight & 15) - 8;
          else weight -= 128;
          products += weight * (int64_t)rintf(x[i] * inverse);
        }
        sum += (double)products * (largest / 127) * number_of(p->scales[n * blocks + b]);
      }
      y[r * layer->outputs + n] = sum;
    }
}

/* Products [rows][outputs] to [rows][given_outputs]: GELU of the first half, times the other. */
static void gate(const Product *p, double *y) {
  int64_t width = given_outputs(&p->layer);
  for (int64_t r = 0; r < p->rows; r++)
    for (int64_t i = 0; i < width; i++) {
      double x = y[r * 2 * width + i], up = y[r * 2 * width + width + i];
      double gelu = x / 2 * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
      y[r * width + i] = gelu * up;
    }
}

static void run(const LinearKernel *kernel, Product *p) {
  int64_t outputs = p->layer.outputs, given = given_outputs(&p->layer);
  int64_t spans = (outputs + LINEAR_SPAN - 1) / LINEAR_SPAN;
  if (p->rows <= LINEAR_FEW_ROWS) {
    for (int64_t row = 0; row < p->rows; row++) kernel->prepare_row(p, (size_t)row);
    for (int64_t span = 0; span < spans; span++) kernel->few_rows(p, (size_t)span);
    for (int64_t row = 0; p->layer.is_gated && row < p->rows; row++) kernel->gate_row(p, (size_t)row);
    return;
  }
  int64_t groups = (p->rows + kernel->height - 1) / kernel->height;
  for (int64_t group = 0; group < groups; group++) kernel->prepare_rows(p, (size_t)group);
  for (int64_t tile = 0; tile < (given + LINEAR_TILE - 1) / LINEAR_TILE; tile++)
    kernel->many_rows(p, (size_t)tile);
}

static double check_case(const LinearKernel *kernel, const Case *of) {
  LinearLayer layer = {NULL, kernel, of->inputs, of->outputs, of->bits, of->block, of->is_gated};
  int64_t blocks = blocks_of(&layer), bytes = of->inputs * of->bits / 8;
  int64_t outs = of->rows * of->outputs, given = of->rows * given_outputs(&layer);
  float *x = allocated(of->rows * of->inputs, sizeof *x), *y = allocated(given, sizeof *y);
  float *products = of->is_gated ? allocated(outs, sizeof *products) : y;
  uint16_t *scales = allocated(of->outputs * blocks, sizeof *scales);
  int8_t *weights = allocated(of->outputs * bytes, 1);
  double *expected = allocated(outs, sizeof *expected);
  draw_floats(x, of->rows * of->inputs, -2, 2);
  draw_bytes((int8_t *)scales, of->outputs * blocks * 2, 0, 127);
  for (int64_t i = 0; i < of->outputs * blocks; i++) scales[i] = 0x3c00 | (scales[i] & 0xff);
  draw_bytes(weights, of->outputs * bytes, -128, 127);
  if (of->is_extreme) {
    int8_t largest = of->bits == 4 ? -1 : 127, least = of->bits == 4 ? 0 : -128;
    for (int64_t i = 0; i < of->rows * of->inputs; i++) x[i] = i / of->inputs % 2 ? 2 : -2;
    for (int64_t i = 0; i < of->outputs * bytes; i++) weights[i] = i / bytes % 2 ? largest : least;
  }
  Product p = {.layer = layer, .rows = of->rows, .x = x, .weights = (const uint8_t *)weights,
               .scales = scales, .products = products, .y = y,
               .integers = allocated(of->rows * padded_inputs(&layer), 1),
               .x_scales = allocated(of->rows * blocks, sizeof(float)),
               .zero_terms = allocated(of->rows * zero_term_count(&layer), sizeof(int32_t))};
  multiply(&p, expected);
  if (of->is_gated) gate(&p, expected);
  run(kernel, &p);
  double largest = p.lacks_memory ? INFINITY : difference(y, expected, given);
  void *all[] = {x, y, scales, weights, expected, p.integers, p.x_scales, p.zero_terms};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  if (products != y) free(products);
  return largest;
}

double check_linear(const LinearKernel *kernel) {
  double largest = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    largest = fmax(largest, check_case(kernel, cases + i));
  return largest;
}
