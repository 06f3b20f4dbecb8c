/* GroupQueryAttention as decoder graphs write it: a mask that is given, no rotation, keys and values
 * written in place. All else, such as a few rows or many over int8, is left to onnxruntime.
 */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention_op.h"

#define ATTRIBUTES (COUNT(integers) + COUNT(reals) + COUNT(texts))
#define COUNT(table) (sizeof(table) / sizeof(*(table)))
#define WORD 32 /* longest text of an attribute */
#define QUANT_TYPE "PER_CHANNEL"
#define NAME "GroupQueryAttention"

enum { HEADS, KV_HEADS, BIT_WIDTH = 8, SCALE = 0 };
static const struct {
  const char *name;
  int64_t known, otherwise; /* what this file computes, and what a node without it means */
} integers[] = {{"num_heads", 0, 0},
                {"kv_num_heads", 0, 0},
                {"causal", 0, 1},
                {"do_rotary", 0, 0},
                {"local_window_size", -1, -1},
                {"rotary_interleaved", 0, 0},
                {"qk_output", 0, 0},
                {"smooth_softmax", 0, 0},
                {"kv_cache_bit_width", 0, 0}}; /* 8 of caches in int8 */
static const char *const reals[] = {"scale", "softcap"};
static const char *const texts[] = {"k_quant_type", "v_quant_type"};

/* The attributes of a node that onnxruntime's operator is made with, too. */
typedef struct {
  const OrtApi *api;
  OrtOpAttr *all[ATTRIBUTES];
  int count;
} Attributes;

static OrtStatus *keep(Attributes *to, const char *name, const void *data, size_t length, int type) {
  OrtStatus *status = to->api->CreateOpAttr(name, data, (int)length, type, &to->all[to->count]);
  to->count += !status;
  return status;
}

/* Whether a node has an attribute: `status` is that of reading it. */
static int has(const OrtApi *api, OrtStatus *status) {
  if (status) api->ReleaseStatus(status);
  return !status;
}

static OrtStatus *read_attributes(const OrtKernelInfo *info, AttentionOp *kernel, Attributes *to) {
  const OrtApi *api = kernel->api;
  int64_t number;
  float real;
  for (size_t i = 0; i < COUNT(integers); i++) {
    int given = has(api, api->KernelInfoGetAttribute_int64(info, integers[i].name, &number));
    if (given) TRY(keep(to, integers[i].name, &number, 1, ORT_ATTR_INT));
    else number = integers[i].otherwise;
    if (i == HEADS) kernel->heads = number;
    else if (i == KV_HEADS) kernel->kv_heads = number;
    else if (i == BIT_WIDTH && kernel->is_int8) kernel->is_supported &= number == CHAR_BIT;
    else kernel->is_supported &= number == integers[i].known;
  }
  for (size_t i = 0; i < COUNT(reals); i++) {
    if (!has(api, api->KernelInfoGetAttribute_float(info, reals[i], &real))) continue;
    TRY(keep(to, reals[i], &real, 1, ORT_ATTR_FLOAT));
    if (i == SCALE) kernel->scale = real;
    else kernel->is_supported &= real == 0;
  }
  for (size_t i = 0; i < COUNT(texts); i++) {
    char text[WORD];
    size_t size = WORD;
    int given = has(api, api->KernelInfoGetAttribute_string(info, texts[i], text, &size));
    kernel->is_per_channel[i] = given && !strcmp(text, QUANT_TYPE);
    kernel->is_supported &= kernel->is_int8 == kernel->is_per_channel[i] && given == kernel->is_int8;
    if (given) TRY(keep(to, texts[i], text, size - 1, ORT_ATTR_STRING));
  }
  kernel->is_supported &= kernel->kv_heads > 0 && kernel->heads % kernel->kv_heads == 0;
  return NULL;
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **out) {
  AttentionOp *kernel = calloc(1, sizeof *kernel);
  Attributes attributes = {.api = api};
  if (!kernel) return api->CreateStatus(ORT_FAIL, NO_MEMORY);
  const char *types[] = {"T", "T_CACHE", "M"};
  int values[] = {ORT_FLOAT, op->GetInputType(op, PAST_KEY), ORT_INT32};
  kernel->api = api;
  kernel->level = level_in_use();
  kernel->is_int8 = values[1] == ORT_INT8;
  kernel->is_supported = kernel->level != NULL;
  OrtStatus *status = read_attributes(info, kernel, &attributes);
  if (!status)
    status = api->CreateOp(info, NAME, DOMAIN, 1, types, values, COUNT(types),
                           (const OrtOpAttr *const *)attributes.all, attributes.count, INPUTS, OUTPUTS,
                           &kernel->fallback_op);
  for (int i = 0; i < attributes.count; i++) api->ReleaseOpAttr(attributes.all[i]);
  if (status) free(kernel);
  else *out = kernel;
  return status;
}

static void destroy(void *data) {
  AttentionOp *kernel = data;
  kernel->api->ReleaseOp(kernel->fallback_op);
  free(kernel);
}

/* Shapes of at most CALL_AXES axes. */
static OrtStatus *read_shape(const OrtApi *api, const OrtValue *value, int64_t *shape, size_t *axes) {
  int64_t whole[LARGEST_AXES];
  TRY(tensor_shape(api, value, whole, axes));
  if (*axes > CALL_AXES) return api->CreateStatus(ORT_FAIL, "at most 4 axes");
  memcpy(shape, whole, *axes * sizeof *shape);
  return NULL;
}

/* Whether a mask covers what is attended; there may be one for each of batch and heads. */
static int covers(const Call *call, int64_t heads, int64_t total) {
  const int64_t *mask = call->shapes[MASK], *query = call->shapes[QUERY];
  return call->axes[MASK] == 4 && (mask[0] == 1 || mask[0] == query[0]) &&
         (mask[1] == 1 || mask[1] == heads) && mask[2] == query[1] && mask[3] >= total;
}

/* What is wrong with the shapes of a call that would have something read or written beyond a tensor,
 * here or by onnxruntime, which takes the outputs for as large as it would make them; else NULL.
 */
static const char *wrong_shape(const AttentionOp *kernel, const Call *call) {
  for (int i = 0; i <= TOTAL; i++)
    if (!call->inputs[i]) return "an input is missing";
  if (call->axes[QUERY] != 3 || call->axes[PAST_KEY] != 4 || call->axes[PAST_VALUE] != 4)
    return "queries have 3 axes and caches 4";
  const int64_t *query = call->shapes[QUERY], *cache = call->shapes[PAST_KEY], size = cache[3];
  int64_t heads = kernel->heads, kv_heads = kernel->kv_heads;
  if (heads < 1 || kv_heads < 1 || heads > INT32_MAX || heads % kv_heads || size > INT32_MAX)
    return "num_heads is no multiple of kv_num_heads";
  if (query[2] != heads * size) return "queries are not num_heads times the head size";
  if (cache[0] != query[0] || cache[1] != kv_heads ||
      memcmp(cache, call->shapes[PAST_VALUE], CALL_AXES * sizeof *cache))
    return "caches are not [batch, kv_num_heads, rows, head size]";
  for (int i = KEY; i <= VALUE; i++)
    if (call->axes[i] != 3 || call->shapes[i][0] != query[0] || call->shapes[i][1] != query[1] ||
        call->shapes[i][2] != kv_heads * size)
      return "new keys or values are not [batch, rows, kv_num_heads times the head size]";
  for (int i = 0; kernel->is_int8 && i < INPUTS - KEY_SCALES; i++) {
    size_t expected = kernel->is_per_channel[i] ? (size_t)(kv_heads * size) : 1;
    if (!call->inputs[KEY_SCALES + i] || call->counts[KEY_SCALES + i] != expected)
      return "a cache in int8 has not the scales that its quant_type says";
  }
  return NULL;
}

/* The same of the numbers that say how many rows the caches hold. */
static const char *wrong_length(const AttentionOp *kernel, const Call *call) {
  int64_t batch = call->shapes[QUERY][0], rows = call->shapes[QUERY][1];
  if (call->counts[LAST_ROW] != (size_t)batch || call->counts[TOTAL] != 1)
    return "seqlens_k has one number for each of the batch and total_sequence_length one";
  int64_t total = *(const int32_t *)call->in[TOTAL];
  if (total < rows || total > call->shapes[PAST_KEY][2])
    return "total_sequence_length is not within the caches";
  for (int64_t i = 0; i < batch; i++) {
    int64_t last = ((const int32_t *)call->in[LAST_ROW])[i];
    if (last < 0 || last >= total || (rows < total && last + 1 < rows))
      return "seqlens_k is not within total_sequence_length";
  }
  if (call->inputs[MASK] && !covers(call, kernel->heads, total))
    return "the mask is not [batch, heads, rows, total_sequence_length]";
  return NULL;
}

static OrtStatus *read_call(const AttentionOp *kernel, OrtKernelContext *context, Call *call) {
  const OrtApi *api = kernel->api;
  static const int like[OUTPUTS] = {QUERY, PAST_KEY, PAST_VALUE};
  size_t count;
  TRY(api->KernelContext_GetInputCount(context, &count));
  for (size_t i = 0; i < count && i < INPUTS; i++) {
    TRY(api->KernelContext_GetInput(context, i, &call->inputs[i]));
    if (!call->inputs[i]) continue;
    TRY(read_shape(api, call->inputs[i], call->shapes[i], &call->axes[i]));
    TRY(element_count(api, call->inputs[i], &call->counts[i]));
    TRY(api->GetTensorMutableData((OrtValue *)call->inputs[i], &call->in[i]));
  }
  const char *wrong = wrong_shape(kernel, call);
  if (!wrong) wrong = wrong_length(kernel, call);
  if (wrong) return api->CreateStatus(ORT_FAIL, wrong);
  for (size_t i = 0; i < OUTPUTS; i++) {
    int input = like[i];
    TRY(api->KernelContext_GetOutput(context, i, call->shapes[input], call->axes[input],
                                     &call->outputs[i]));
    TRY(api->GetTensorMutableData(call->outputs[i], &call->out[i]));
  }
  return NULL;
}

/* Whether a tensor has this shape. */
static int has_shape(const Call *call, int input, size_t axes, int64_t a, int64_t b, int64_t c,
                     int64_t d) {
  const int64_t expected[CALL_AXES] = {a, b, c, d};
  return call->inputs[input] && call->axes[input] == axes &&
         !memcmp(call->shapes[input], expected, axes * sizeof *expected);
}

/* Whether it is a call like those of decoder graphs: a mask, no rotation, caches in place. */
static int read_sizes(const AttentionOp *kernel, Call *call) {
  if (!kernel->is_supported || call->axes[QUERY] != 3 || call->axes[PAST_KEY] != 4) return 0;
  for (int i = TOTAL + 1; i < INPUTS; i++)
    if ((i == MASK || (kernel->is_int8 && i >= KEY_SCALES)) == !call->inputs[i]) return 0;
  int64_t rows = call->shapes[QUERY][1], capacity = call->shapes[PAST_KEY][2];
  int64_t size = call->shapes[PAST_KEY][3], kv_width = kernel->kv_heads * size;
  int64_t total = (int64_t)*(int32_t *)call->in[LAST_ROW] + 1;
  for (int i = KEY_SCALES; i < INPUTS; i++)
    if (call->inputs[i] && !has_shape(call, i, 1, kv_width, 0, 0, 0)) return 0;
  if (!has_shape(call, QUERY, 3, 1, rows, kernel->heads * size, 0) ||
      !has_shape(call, KEY, 3, 1, rows, kv_width, 0) ||
      !has_shape(call, VALUE, 3, 1, rows, kv_width, 0) ||
      !has_shape(call, MASK, 4, 1, 1, rows, total) ||
      !has_shape(call, PAST_KEY, 4, 1, kernel->kv_heads, capacity, size) ||
      !has_shape(call, PAST_VALUE, 4, 1, kernel->kv_heads, capacity, size))
    return 0;
  if (rows < 1 || size < 1 || total < rows || total > capacity ||
      call->in[PAST_KEY] != call->out[PRESENT_KEY] || call->in[PAST_VALUE] != call->out[PRESENT_VALUE])
    return 0;
  call->rows = rows, call->size = size, call->capacity = capacity, call->total = total;
  call->scale = kernel->scale != 0 ? kernel->scale : 1 / sqrtf((float)size);
  return 1;
}

static OrtStatus *compute(void *data, OrtKernelContext *context) {
  const AttentionOp *kernel = data;
  Call call = {.inputs = {NULL}};
  TRY(read_call(kernel, context, &call));
  if (read_sizes(kernel, &call)) {
    if (is_prefill(kernel, &call)) return prefill_attention(kernel, &call, context);
    if (is_decode(&call)) return decode_attention(kernel, &call, context);
  }
  return kernel->api->InvokeOp(context, kernel->fallback_op, call.inputs, INPUTS, call.outputs,
                               OUTPUTS);
}

static const char *name(const OrtCustomOp *op) { return (void)op, NAME; }
static int cache_type(const OrtCustomOp *op) {
  return op == &attention_int8_op ? ORT_INT8 : ORT_FLOAT;
}
static int input_type(const OrtCustomOp *op, size_t index) {
  if (index == PAST_KEY || index == PAST_VALUE) return cache_type(op);
  if (index == LAST_ROW || index == TOTAL) return ORT_INT32;
  return index == POSITIONS ? ORT_INT64 : ORT_FLOAT;
}
static size_t input_count(const OrtCustomOp *op) { return (void)op, INPUTS; }
static int output_type(const OrtCustomOp *op, size_t index) {
  return index == OUT ? ORT_FLOAT : cache_type(op);
}
static size_t output_count(const OrtCustomOp *op) { return (void)op, OUTPUTS; }
static int characteristic(const OrtCustomOp *op, size_t index) {
  return (void)op, index > TOTAL ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp attention_op = CUSTOM_OP(name, destroy, characteristic);
const OrtCustomOp attention_int8_op = CUSTOM_OP(name, destroy, characteristic);
