/* GroupQueryAttention of many rows over caches of float32, as decoder graphs write it: a mask that is
 * given, no rotation, keys and values written in place. All else, and few rows, onnxruntime computes.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention_kernel.h"
#include "ort_operators.h"

#define LARGEST_AXES 4
#define MANY_ROWS 48 /* fewer are attended sooner than keys and values are packed */
#define ATTRIBUTES (COUNT(integers) + COUNT(reals) + COUNT(texts))
#define COUNT(table) (sizeof(table) / sizeof(*(table)))
#define WORD 32 /* longest text of an attribute */
#define NAME "GroupQueryAttention"

enum { QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, LAST_ROW, TOTAL, POSITIONS = 9, MASK, INPUTS = 14 };
enum { OUT, PRESENT_KEY, PRESENT_VALUE, OUTPUTS };

typedef struct {
  const OrtApi *api;
  OrtOp *own; /* onnxruntime's */
  int64_t heads, kv_heads;
  float scale;  /* 0: by the head size */
  int is_known; /* whether the attributes are those that this file computes */
} Grouped;

/* Values and shapes of one call. */
typedef struct {
  const OrtValue *inputs[INPUTS];
  OrtValue *outputs[OUTPUTS];
  int64_t shapes[INPUTS][LARGEST_AXES];
  size_t axes[INPUTS];
  void *in[INPUTS], *out[OUTPUTS];
} Call;

/* The rows of a call, all heads after one another. */
typedef struct {
  Head head; /* the one whose turn it is */
  const float *new_keys, *new_values;
  float *keys, *values; /* caches [kv_heads][capacity][size] */
  ptrdiff_t kv_heads, capacity, rows;
  uint32_t *packed_keys, *packed_values;
  uint8_t *sight; /* [groups of queries][blocks] */
} Job;

enum { HEADS, KV_HEADS, SCALE = 0 };
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
                {"kv_cache_bit_width", 0, 0}};
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

static OrtStatus *read_attributes(const OrtKernelInfo *info, Grouped *kernel, Attributes *to) {
  const OrtApi *api = kernel->api;
  int64_t number;
  float real;
  for (size_t i = 0; i < COUNT(integers); i++) {
    int given = has(api, api->KernelInfoGetAttribute_int64(info, integers[i].name, &number));
    if (given) TRY(keep(to, integers[i].name, &number, 1, ORT_ATTR_INT));
    else number = integers[i].otherwise;
    if (i == HEADS) kernel->heads = number;
    else if (i == KV_HEADS) kernel->kv_heads = number;
    else kernel->is_known &= number == integers[i].known;
  }
  for (size_t i = 0; i < COUNT(reals); i++) {
    if (!has(api, api->KernelInfoGetAttribute_float(info, reals[i], &real))) continue;
    TRY(keep(to, reals[i], &real, 1, ORT_ATTR_FLOAT));
    if (i == SCALE) kernel->scale = real;
    else kernel->is_known &= real == 0;
  }
  for (size_t i = 0; i < COUNT(texts); i++) {
    char text[WORD];
    size_t size = WORD;
    if (!has(api, api->KernelInfoGetAttribute_string(info, texts[i], text, &size))) continue;
    TRY(keep(to, texts[i], text, size - 1, ORT_ATTR_STRING));
    kernel->is_known = 0;
  }
  kernel->is_known &= kernel->kv_heads > 0 && kernel->heads % kernel->kv_heads == 0;
  return NULL;
}

static OrtStatus *create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                         void **out) {
  Grouped *kernel = calloc(1, sizeof *kernel);
  Attributes attributes = {.api = api};
  if (!kernel) return api->CreateStatus(ORT_FAIL, NO_MEMORY);
  const char *types[] = {"T", "T_CACHE", "M"};
  int values[] = {ORT_FLOAT, op->GetInputType(op, PAST_KEY), ORT_INT32};
  kernel->api = api;
  kernel->is_known = values[1] == ORT_FLOAT && attention_is_ours();
  OrtStatus *status = read_attributes(info, kernel, &attributes);
  if (!status)
    status = api->CreateOp(info, NAME, DOMAIN, 1, types, values, COUNT(types),
                           (const OrtOpAttr *const *)attributes.all, attributes.count, INPUTS, OUTPUTS,
                           &kernel->own);
  for (int i = 0; i < attributes.count; i++) api->ReleaseOpAttr(attributes.all[i]);
  if (status) free(kernel);
  else *out = kernel;
  return status;
}

static void destroy(void *data) {
  Grouped *kernel = data;
  kernel->api->ReleaseOp(kernel->own);
  free(kernel);
}

static OrtStatus *read_shape(const OrtApi *api, const OrtValue *value, int64_t *shape, size_t *axes) {
  OrtShape *info;
  TRY(api->GetTensorTypeAndShape(value, &info));
  OrtStatus *status = api->GetDimensionsCount(info, axes);
  if (!status && *axes > LARGEST_AXES) status = api->CreateStatus(ORT_FAIL, "at most 4 axes");
  if (!status) status = api->GetDimensions(info, shape, *axes);
  api->ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

static OrtStatus *read_call(const OrtApi *api, OrtKernelContext *context, Call *call) {
  static const int like[OUTPUTS] = {QUERY, PAST_KEY, PAST_VALUE};
  size_t count;
  TRY(api->KernelContext_GetInputCount(context, &count));
  for (size_t i = 0; i < count && i < INPUTS; i++) {
    TRY(api->KernelContext_GetInput(context, i, &call->inputs[i]));
    if (!call->inputs[i]) continue;
    TRY(read_shape(api, call->inputs[i], call->shapes[i], &call->axes[i]));
    TRY(api->GetTensorMutableData((OrtValue *)call->inputs[i], &call->in[i]));
  }
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
  const int64_t expected[LARGEST_AXES] = {a, b, c, d};
  return call->inputs[input] && call->axes[input] == axes &&
         !memcmp(call->shapes[input], expected, axes * sizeof *expected);
}

/* Whether it is a call for this file; `job` is then filled in but for what it allocates. */
static int read_job(const Grouped *kernel, const Call *call, Job *job) {
  if (!kernel->is_known || call->axes[QUERY] != 3 || call->axes[PAST_KEY] != 4) return 0;
  for (int i = TOTAL + 1; i < INPUTS; i++)
    if ((i == MASK) == !call->inputs[i]) return 0;
  int64_t rows = call->shapes[QUERY][1], width = call->shapes[QUERY][2];
  int64_t capacity = call->shapes[PAST_KEY][2], size = call->shapes[PAST_KEY][3];
  int64_t total = (int64_t)*(int32_t *)call->in[LAST_ROW] + 1, kv_width = kernel->kv_heads * size;
  if (!has_shape(call, QUERY, 3, 1, rows, kernel->heads * size, 0) ||
      !has_shape(call, KEY, 3, 1, rows, kv_width, 0) ||
      !has_shape(call, VALUE, 3, 1, rows, kv_width, 0) ||
      !has_shape(call, MASK, 4, 1, 1, rows, total) ||
      !has_shape(call, PAST_KEY, 4, 1, kernel->kv_heads, capacity, size) ||
      !has_shape(call, PAST_VALUE, 4, 1, kernel->kv_heads, capacity, size))
    return 0;
  if (rows < MANY_ROWS || size < 1 || size > LARGEST_HEAD || total < rows || total > capacity ||
      total > INT32_MAX / QUERIES || call->in[PAST_KEY] != call->out[PRESENT_KEY] ||
      call->in[PAST_VALUE] != call->out[PRESENT_VALUE])
    return 0;
  Head *head = &job->head;
  job->new_keys = call->in[KEY], job->new_values = call->in[VALUE];
  job->keys = call->in[PAST_KEY], job->values = call->in[PAST_VALUE];
  job->kv_heads = kernel->kv_heads, job->capacity = capacity, job->rows = rows;
  head->queries = call->in[QUERY], head->out = call->out[OUT];
  head->keys = job->keys, head->values = job->values;
  head->query_stride = head->out_stride = width, head->key_stride = head->size = size;
  head->sharing = kernel->heads / kernel->kv_heads;
  head->query_count = rows * head->sharing, head->key_count = total;
  head->scale = kernel->scale != 0 ? kernel->scale : 1 / sqrtf((float)size);
  head->mask = call->in[MASK], head->mask_stride = total;
  return 1;
}

/* New rows of a head to the caches. */
static void write_rows(void *data, size_t index) {
  Job *job = data;
  ptrdiff_t size = job->head.size, width = job->kv_heads * size;
  ptrdiff_t from = (ptrdiff_t)index * size;
  ptrdiff_t to = ((ptrdiff_t)index * job->capacity + job->head.key_count - job->rows) * size;
  for (ptrdiff_t row = 0; row < job->rows; row++, from += width, to += size) {
    memcpy(job->keys + to, job->new_keys + from, (size_t)size * sizeof(float));
    memcpy(job->values + to, job->new_values + from, (size_t)size * sizeof(float));
  }
}

static ptrdiff_t groups_of(const Head *head) { return (head->query_count + QUERIES - 1) / QUERIES; }

/* Queries from `first` on that are attended at once. */
static ptrdiff_t queries_at(const Head *head, ptrdiff_t first) {
  return head->query_count - first < QUERIES ? head->query_count - first : QUERIES;
}

static void look_at_group(void *data, size_t index) {
  const Job *job = data;
  ptrdiff_t first = (ptrdiff_t)index * QUERIES;
  look(&job->head, first, queries_at(&job->head, first),
       job->sight + (ptrdiff_t)index * blocks(job->head.key_count));
}

/* A block of keys and values, if any group sees of it. */
static void pack_seen(void *data, size_t index) {
  Job *job = data;
  ptrdiff_t count = blocks(job->head.key_count), block = (ptrdiff_t)index;
  for (ptrdiff_t cell = block; cell < groups_of(&job->head) * count; cell += count)
    if (job->sight[cell] != SEES_NOTHING) {
      pack_blocks(&job->head, block, block + 1, job->packed_keys, job->packed_values);
      return;
    }
}

static void attend_group(void *data, size_t index) {
  const Job *job = data;
  ptrdiff_t first = (ptrdiff_t)index * QUERIES;
  attend_rows(&job->head, job->packed_keys, job->packed_values, 0,
              job->sight + (ptrdiff_t)index * blocks(job->head.key_count), first,
              queries_at(&job->head, first));
}

static OrtStatus *attend_heads(const OrtApi *api, OrtKernelContext *context, Job *job) {
  Head *head = &job->head;
  size_t groups = (size_t)groups_of(head), parts = (size_t)blocks(head->key_count);
#define EACH(step, number) TRY(api->KernelContext_ParallelFor(context, step, number, number, job))
  EACH(write_rows, (size_t)job->kv_heads);
  EACH(look_at_group, groups);
  for (ptrdiff_t i = 0; i < job->kv_heads; i++) {
    EACH(pack_seen, parts);
    EACH(attend_group, groups);
    head->queries += head->sharing * head->size, head->out += head->sharing * head->size;
    head->keys += job->capacity * head->size, head->values += job->capacity * head->size;
  }
  return NULL;
}

static OrtStatus *compute(void *data, OrtKernelContext *context) {
  const Grouped *kernel = data;
  Call call = {.inputs = {NULL}};
  Job job = {.sight = NULL};
  TRY(read_call(kernel->api, context, &call));
  if (!read_job(kernel, &call, &job))
    return kernel->api->InvokeOp(context, kernel->own, call.inputs, INPUTS, call.outputs, OUTPUTS);
  size_t words = (size_t)packed_words(job.head.key_count, job.head.size);
  size_t cells = (size_t)(groups_of(&job.head) * blocks(job.head.key_count));
  job.packed_keys = malloc(2 * words * sizeof *job.packed_keys + cells);
  if (!job.packed_keys)
    return kernel->api->CreateStatus(ORT_FAIL, NO_MEMORY);
  job.packed_values = job.packed_keys + words;
  job.sight = (uint8_t *)(job.packed_values + words);
  OrtStatus *status = attend_heads(kernel->api, context, &job);
  free(job.packed_keys);
  return status;
}

int attention_is_ours(void) { return has_instructions(); }

static const char *name(const OrtCustomOp *op) { return (void)op, NAME; }
static int cache_type(const OrtCustomOp *op) {
  return op == &attention_in_bytes_operator ? ORT_INT8 : ORT_FLOAT;
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

#define OPERATOR                                    \
  {.version = ORT_VERSION,                          \
   .GetName = name,                                 \
   .GetExecutionProviderType = on_cpu,              \
   .GetInputType = input_type,                      \
   .GetInputTypeCount = input_count,                \
   .GetOutputType = output_type,                    \
   .GetOutputTypeCount = output_count,              \
   .KernelDestroy = destroy,                        \
   .GetInputCharacteristic = characteristic,        \
   .GetOutputCharacteristic = is_required,          \
   .GetInputMemoryType = in_memory,                 \
   .GetVariadicInputMinArity = one,                 \
   .GetVariadicInputHomogeneity = one,              \
   .GetVariadicOutputMinArity = one,                \
   .GetVariadicOutputHomogeneity = one,             \
   .CreateKernelV2 = create,                        \
   .KernelComputeV2 = compute,                      \
   .GetStartVersion = one,                          \
   .GetEndVersion = one}

const OrtCustomOp attention_operator = OPERATOR;
const OrtCustomOp attention_in_bytes_operator = OPERATOR;
