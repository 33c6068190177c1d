/* The C API: a model file is loaded once and run on any number of images. For C and for languages
 * that call C.
 *
 *   kernelprune_engine* engine = NULL;
 *   if (kernelprune_load("model.safetensors", NULL, &engine) != KERNELPRUNE_OK) {
 *     fprintf(stderr, "%s\n", kernelprune_last_error());
 *     return 1;
 *   }
 *   const float* inputs[] = {images};  // [batch, C, H, W]
 *   float* outputs[] = {scores};       // [batch, classes]
 *   kernelprune_run(engine, inputs, outputs, batch);
 *   kernelprune_free(engine);
 *
 * Stable: later versions add functions, and members at the end of structs, which carry their size.
 * Functions with a status give KERNELPRUNE_OK, or what went wrong, with a message from
 * kernelprune_last_error(); they then change nothing that they were to fill in. An engine never
 * changes: any number of threads may use it at once.
 */
#ifndef KERNELPRUNE_C_API_H_
#define KERNELPRUNE_C_API_H_

#include <stddef.h>
#include <stdint.h>

#include "kernelprune/visibility.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kernelprune_engine kernelprune_engine;

typedef enum {
  KERNELPRUNE_OK = 0,
  KERNELPRUNE_ERROR = 1,             /* no such file, an argument out of range */
  KERNELPRUNE_ERROR_FORMAT = 2,      /* the file is not a valid model */
  KERNELPRUNE_ERROR_SHAPE = 3,       /* a size that the model cannot have */
  KERNELPRUNE_ERROR_UNSUPPORTED = 4, /* valid, but this build cannot do it */
  KERNELPRUNE_ERROR_DEVICE = 5,      /* the device or instruction set is not available here */
  KERNELPRUNE_ERROR_MEMORY = 6       /* there is not enough memory */
} kernelprune_status;

typedef struct {
  size_t size;        /* sizeof(kernelprune_options) */
  int32_t threads;    /* of one run; 0 is 1 */
  const char* isa;    /* "portable", "avx2" or "avx512"; NULL: the best that the machine has */
  const char* device; /* "cpu", "cuda", "cuda:1"; NULL: "cpu" */
  int32_t strict;     /* not 0: direct sums, never Winograd's method */
} kernelprune_options;

#define KERNELPRUNE_MAX_RANK 4

/* An input or output of a model. Shapes are per image: an image of a batch has `rank` sides. */
typedef struct {
  size_t size;      /* sizeof(kernelprune_tensor), set by the caller */
  const char* name; /* as long as the engine lives */
  int32_t rank;
  int64_t shape[KERNELPRUNE_MAX_RANK];
  int32_t is_free[KERNELPRUNE_MAX_RANK]; /* not 0: kernelprune_resized() takes other sides */
} kernelprune_tensor;

/* "1.2.3" */
KERNELPRUNE_API const char* kernelprune_version(void);

/* The message of the last call of this thread that did not give KERNELPRUNE_OK; "" before that. */
KERNELPRUNE_API const char* kernelprune_last_error(void);

/* Loads a model. `options` may be NULL. The engine is freed by kernelprune_free(). */
KERNELPRUNE_API kernelprune_status kernelprune_load(const char* path,
                                                    const kernelprune_options* options,
                                                    kernelprune_engine** engine);

/* The same from the bytes of a file, which are not needed afterwards. `name` is for messages. */
KERNELPRUNE_API kernelprune_status kernelprune_load_bytes(const void* bytes, size_t size,
                                                          const char* name,
                                                          const kernelprune_options* options,
                                                          kernelprune_engine** engine);

/* NULL is fine. */
KERNELPRUNE_API void kernelprune_free(kernelprune_engine* engine);

KERNELPRUNE_API int32_t kernelprune_inputs(const kernelprune_engine* engine);
KERNELPRUNE_API int32_t kernelprune_outputs(const kernelprune_engine* engine);
KERNELPRUNE_API kernelprune_status kernelprune_input(const kernelprune_engine* engine,
                                                     int32_t index, kernelprune_tensor* tensor);
KERNELPRUNE_API kernelprune_status kernelprune_output(const kernelprune_engine* engine,
                                                      int32_t index, kernelprune_tensor* tensor);

/* The same model for maps of another size, where the file leaves it free: an engine of its own
 * that shares the weights, and is freed like any other. */
KERNELPRUNE_API kernelprune_status kernelprune_resized(const kernelprune_engine* engine,
                                                       int64_t height, int64_t width,
                                                       kernelprune_engine** resized);

/* inputs[i] points at [batch, ...shape of input i] floats, outputs[i] likewise, in C order. */
KERNELPRUNE_API kernelprune_status kernelprune_run(const kernelprune_engine* engine,
                                                   const float* const* inputs,
                                                   float* const* outputs, int64_t batch);

/* The instruction set in use; as long as the engine lives. */
KERNELPRUNE_API const char* kernelprune_isa(const kernelprune_engine* engine);

#ifdef __cplusplus
}
#endif

#endif
