/* GroupQueryAttention of one row over caches in bytes: a token of an answer. */
#include <stdlib.h>

#include "decode_kernel.h"
#include "attention_call.h"

int answer_is_ours(void) { return answer_has_instructions(); }

int is_decode(const Grouped *kernel, const Call *call) {
  return kernel->is_in_bytes && call->rows == 1 && call->size <= ANSWER_LARGEST &&
         call->size % ANSWER_UNIT == 0;
}

OrtStatus *attend_answer(const Grouped *kernel, const Call *call, OrtKernelContext *context) {
  const OrtApi *api = kernel->api;
  Answer answer = {.query = call->in[QUERY],
                   .new_key = call->in[KEY],
                   .new_value = call->in[VALUE],
                   .keys = call->in[PAST_KEY],
                   .values = call->in[PAST_VALUE],
                   .key_steps = call->in[KEY_STEPS],
                   .value_steps = call->in[VALUE_STEPS],
                   .mask = call->in[MASK],
                   .out = call->out[OUT],
                   .kv_heads = kernel->kv_heads,
                   .sharing = kernel->heads / kernel->kv_heads,
                   .size = call->size,
                   .capacity = call->capacity,
                   .key_count = call->total,
                   .scale = call->scale};
  size_t tasks = (size_t)(answer.kv_heads * answer_spans(&answer));
  size_t parts = tasks * (size_t)answer.sharing, size = (size_t)answer.size;
  float *scratch = malloc(((size_t)kernel->heads * size + parts * (size + 2)) * sizeof *scratch);
  if (!scratch) return api->CreateStatus(ORT_FAIL, NO_MEMORY);
  answer.queries = scratch;
  answer.sums = answer.queries + (size_t)kernel->heads * size;
  answer.highest = answer.sums + parts * size;
  answer.totals = answer.highest + parts;
  answer_begin(&answer);
  OrtStatus *status = api->KernelContext_ParallelFor(context, answer_attend, tasks, tasks, &answer);
  if (!status) answer_end(&answer);
  free(scratch);
  return status;
}
