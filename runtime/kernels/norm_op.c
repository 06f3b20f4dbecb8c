/* ResidualNormalization and RotaryHeadNormalization: the norms of a decoder's layers. */
#include <stdlib.h>
#include <string.h>

#include "level.h"
#include "ort_ops.h"

enum { RESIDUAL, PRODUCT, PRODUCT_WEIGHT, NEXT_WEIGHT, RESIDUAL_INPUTS };
enum { HEADS_PRODUCT, QUERY_WEIGHT, KEY_WEIGHT, COSINES, SINES, HEAD_INPUTS };
enum { OUTPUTS = 2 };

typedef struct {
  const OrtApi *api;
  const NormKernel *kernel;
  int64_t heads[NORM_KINDS]; /* 0 of ResidualNormalization */
  float epsilon;
} NormOp;

/* The inputs of a call, and the shape of the first; of the second whether it is the same. */
typedef struct {
  void *data[HEAD_INPUTS];
  size_t counts[HEAD_INPUTS], axes;
  int64_t shape[LARGEST_AXES], rows;
  int is_second_alike;
} Call;

static OrtStatus *read_call(const NormOp *op, OrtKernelContext *context, size_t count, Call *call) {
  const OrtApi *api = op->api;
  for (size_t i = 0; i < count; i++) {
    const OrtValue *value;
    TRY(api->KernelContext_GetInput(context, i, &value));
    if (!value) return api->CreateStatus(ORT_FAIL, "an input is missing");
    TRY(api->GetTensorMutableData((OrtValue *)value, &call->data[i]));
    int64_t shape[LARGEST_AXES];
    size_t axes;
    TRY(tensor_shape(api, value, shape, &axes));
    call->counts[i] = 1;
    for (size_t axis = 0; axis < axes; axis++) call->counts[i] *= (size_t)shape[axis];
    if (!i) memcpy(call->shape, shape, sizeof shape), call->axes = axes;
    if (i == 1)
      call->is_second_alike =
          axes == call->axes && !memcmp(call->shape, shape, axes * sizeof *shape);
  }
  if (!call->axes) return api->CreateStatus(ORT_FAIL, "1 to 8 axes");
  call->rows = 1;
  for (size_t i = 0; i + 1 < call->axes; i++) call->rows *= call->shape[i];
  return NULL;
}

/* An output like the first input, but for the length of the last axis. */
static OrtStatus *make_output(const NormOp *op, OrtKernelContext *context, size_t index, Call *call,
                              int64_t last, float **out) {
  OrtValue *value;
  call->shape[call->axes - 1] = last;
  TRY(op->api->KernelContext_GetOutput(context, index, call->shape, call->axes, &value));
  return op->api->GetTensorMutableData(value, (void **)out);
}

/* Few rows take less time than to hand them out. */
static OrtStatus *run(const NormOp *op, OrtKernelContext *context, int64_t rows,
                      void (*part)(void *data, size_t group), void *data) {
  size_t groups = (size_t)(rows + NORM_ROWS - 1) / NORM_ROWS;
  if (groups > 1) return op->api->KernelContext_ParallelFor(context, part, groups, 0, data);
  if (groups) part(data, 0);
  return NULL;
}

static OrtStatus *add_residual(const NormOp *op, OrtKernelContext *context) {
  Call call;
  TRY(read_call(op, context, RESIDUAL_INPUTS, &call));
  int64_t size = call.shape[call.axes - 1];
  if (!call.is_second_alike || call.counts[PRODUCT_WEIGHT] != (size_t)size ||
      call.counts[NEXT_WEIGHT] != (size_t)size)
    return op->api->CreateStatus(ORT_FAIL, "product or weights are not as large as the residual");
  ResidualNorm norm = {.residual = call.data[RESIDUAL],
                       .product = call.data[PRODUCT],
                       .product_weight = call.data[PRODUCT_WEIGHT],
                       .next_weight = call.data[NEXT_WEIGHT],
                       .rows = call.rows,
                       .size = size,
                       .epsilon = op->epsilon};
  TRY(make_output(op, context, 0, &call, size, &norm.sum));
  TRY(make_output(op, context, 1, &call, size, &norm.normed));
  return run(op, context, norm.rows, op->kernel->add_residual, &norm);
}

static OrtStatus *rotate_heads(const NormOp *op, OrtKernelContext *context) {
  Call call;
  TRY(read_call(op, context, HEAD_INPUTS, &call));
  HeadNorm norm = {.product = call.data[HEADS_PRODUCT],
                   .weights = {call.data[QUERY_WEIGHT], call.data[KEY_WEIGHT]},
                   .cosines = call.data[COSINES],
                   .sines = call.data[SINES],
                   .rows = call.rows,
                   .heads = {op->heads[NORM_QUERIES], op->heads[NORM_KEYS]},
                   .size = (int64_t)call.counts[QUERY_WEIGHT],
                   .epsilon = op->epsilon};
  if (call.axes != 3 || call.shape[0] != 1)
    return op->api->CreateStatus(ORT_FAIL, "the product is not [1, rows, heads times their size]");
  int64_t heads = norm.heads[NORM_QUERIES] + norm.heads[NORM_KEYS], width = call.shape[2];
  size_t angles = (size_t)(norm.rows * norm.size / 2);
  if (norm.size % 2 || width % heads || width / heads != norm.size ||
      call.counts[KEY_WEIGHT] != (size_t)norm.size)
    return op->api->CreateStatus(ORT_FAIL, "the product is not num_heads + kv_num_heads of the weights");
  if (call.counts[COSINES] != angles || call.counts[SINES] != angles)
    return op->api->CreateStatus(ORT_FAIL, "a row has not half a head of cosines and of sines");
  for (int i = 0; i < NORM_KINDS; i++)
    TRY(make_output(op, context, (size_t)i, &call, norm.heads[i] * norm.size, &norm.out[i]));
  return run(op, context, norm.rows, op->kernel->rotate_heads, &norm);
}

static OrtStatus *compute(void *data, OrtKernelContext *context) {
  const NormOp *op = data;
  return op->heads[0] ? rotate_heads(op, context) : add_residual(op, context);
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **kernel) {
  NormOp made = {.api = api};
  TRY(api->KernelInfoGetAttribute_float(info, "epsilon", &made.epsilon));
  if (op == &head_norm_op) {
    TRY(api->KernelInfoGetAttribute_int64(info, "num_heads", &made.heads[NORM_QUERIES]));
    TRY(api->KernelInfoGetAttribute_int64(info, "kv_num_heads", &made.heads[NORM_KEYS]));
    for (int i = 0; i < NORM_KINDS; i++)
      if (made.heads[i] < 1 || made.heads[i] > INT32_MAX)
        return api->CreateStatus(ORT_FAIL, "num_heads and kv_num_heads are 1 and more");
  }
  if (!level_in_use()) return api->CreateStatus(ORT_FAIL, "no level of kernels is in use");
  made.kernel = level_in_use()->norm;
  NormOp *kept = malloc(sizeof made);
  if (!kept) return api->CreateStatus(ORT_FAIL, NO_MEMORY);
  *kept = made;
  *kernel = kept;
  return NULL;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "ResidualNormalization"; }
static const char *head_name(const OrtCustomOp *op) { return (void)op, "RotaryHeadNormalization"; }
static int input_type(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, ORT_FLOAT; }
static size_t input_count(const OrtCustomOp *op) {
  return op == &head_norm_op ? HEAD_INPUTS : RESIDUAL_INPUTS;
}
static int output_type(const OrtCustomOp *op, size_t index) {
  return (void)op, (void)index, ORT_FLOAT;
}
static size_t output_count(const OrtCustomOp *op) { return (void)op, OUTPUTS; }

const OrtCustomOp residual_norm_op = CUSTOM_OP(name, free, is_required);
const OrtCustomOp head_norm_op = CUSTOM_OP(head_name, free, is_required);
