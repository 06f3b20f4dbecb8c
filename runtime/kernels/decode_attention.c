/* GroupQueryAttention of one row: decode. */
#include <stdlib.h>

#include "attention_op.h"

#define FEW (1 << 16) /* numbers of keys that are read in less time than they are handed out */

int is_decode(const Call *call) {
  return call->rows == 1 && call->size <= DECODE_LARGEST_HEAD &&
         call->size % DECODE_UNIT == 0;
}

OrtStatus *decode_attention(const AttentionOp *kernel, const Call *call, OrtKernelContext *context) {
  const OrtApi *api = kernel->api;
  DecodeStep step = {.query = call->in[QUERY],
                     .new_key = call->in[KEY],
                     .new_value = call->in[VALUE],
                     .keys = call->in[PAST_KEY],
                     .values = call->in[PAST_VALUE],
                     .key_scales = call->in[KEY_SCALES],
                     .value_scales = call->in[VALUE_SCALES],
                     .mask = call->in[MASK],
                     .out = call->out[OUT],
                     .kv_heads = kernel->kv_heads,
                     .group_size = kernel->heads / kernel->kv_heads,
                     .size = call->size,
                     .capacity = call->capacity,
                     .key_count = call->total,
                     .scale = call->scale};
  size_t tasks = (size_t)(step.kv_heads * decode_spans(&step));
  size_t parts = tasks * (size_t)step.group_size, size = (size_t)step.size;
  float *scratch = malloc(((size_t)kernel->heads * size + parts * (size + 2)) * sizeof *scratch);
  if (!scratch) return api->CreateStatus(ORT_FAIL, NO_MEMORY);
  step.queries = scratch;
  step.sums = step.queries + (size_t)kernel->heads * size;
  step.highest = step.sums + parts * size;
  step.totals = step.highest + parts;
  const DecodeKernel *decode = kernel->level->decode;
  decode->begin(&step);
  OrtStatus *status = NULL;
  if (step.kv_heads * step.key_count * step.size < FEW)
    for (size_t task = 0; task < tasks; task++) decode->attend(&step, task);
  else
    status = api->KernelContext_ParallelFor(context, decode->attend, tasks, tasks, &step);
  if (!status) decode->end(&step);
  free(scratch);
  return status;
}
