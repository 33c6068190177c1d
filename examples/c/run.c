/* Runs a model: run MODEL BATCH < images > outputs
 *
 * Both are the numbers themselves, float32 in the machine's byte order: [BATCH, ...shape] of the
 * model's one input and of its one output.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernelprune/c_api.h"

static int fail(const char* what) {
  fprintf(stderr, "error: %s\n", what);
  return 1;
}

static size_t numbers(const kernelprune_tensor* tensor) {
  size_t count = 1;
  for (int32_t i = 0; i < tensor->rank; ++i) count *= (size_t)tensor->shape[i];
  return count;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL BATCH < images > outputs\n", argv[0]);
    return 2;
  }
  const long batch = strtol(argv[2], NULL, 10);
  if (batch < 1 || batch > 1 << 20) return fail("BATCH is a number from 1 up");

  kernelprune_options options = {.size = sizeof options, .threads = 1};
  kernelprune_engine* engine = NULL;
  kernelprune_tensor input = {.size = sizeof input}, output = {.size = sizeof output};
  if (kernelprune_load(argv[1], &options, &engine) != KERNELPRUNE_OK ||
      kernelprune_input(engine, 0, &input) != KERNELPRUNE_OK ||
      kernelprune_output(engine, 0, &output) != KERNELPRUNE_OK) {
    return fail(kernelprune_last_error());
  }
  if (kernelprune_inputs(engine) != 1 || kernelprune_outputs(engine) != 1) {
    return fail("the model has several inputs or outputs");
  }

  const size_t in = numbers(&input) * (size_t)batch, out = numbers(&output) * (size_t)batch;
  float* images = malloc(in * sizeof *images);
  float* scores = malloc(out * sizeof *scores);
  int status = 0;
  if (images == NULL || scores == NULL) {
    status = fail("there is not enough memory");
  } else if (fread(images, sizeof *images, in, stdin) != in) {
    status = fail("there are fewer numbers than BATCH images have");
  } else if (kernelprune_run(engine, (const float* const[]){images}, (float* const[]){scores},
                             batch) != KERNELPRUNE_OK) {
    status = fail(kernelprune_last_error());
  } else if (fwrite(scores, sizeof *scores, out, stdout) != out) {
    status = fail("the outputs cannot be written");
  }
  free(images);
  free(scores);
  kernelprune_free(engine);
  return status;
}
