/* The library's C interface: plain structs and functions, no exceptions, no global settings but the
 * number of threads.
 *
 * A model holds packed weights. A plan is a flat program of operations on buffers for one image
 * size. A run is one image on its way through a plan; runs of one plan share its scratch buffers,
 * so only one of them may be advancing at a time. A cache holds the features of a video's last frame
 * for the run of the next one. Handles may be freed in any order.
 *
 * Functions that can fail return NULL or a negative number; anytime_error() then says why (of the
 * calling thread's last failure).
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ANYTIME_ABI 8

#pragma GCC visibility push(default)

#define ANYTIME_LEVELS 6 /* resolutions: level l is the padded image's size over 2^l */
#define ANYTIME_TERMS 4

typedef struct AnytimeModel AnytimeModel;
typedef struct AnytimePlan AnytimePlan;
typedef struct AnytimeRun AnytimeRun;
typedef struct AnytimeCache AnytimeCache;

typedef enum {
  ANYTIME_CONV = 0,
  ANYTIME_INTERPOLATE = 1,
  ANYTIME_WEIGHTED_SUM = 2
} AnytimeKind;

/* ACTIVE: where the mask is on. NEEDED: that, and every other place whose value something active
 * will read. An interpolation does what is needed and not active. Without a mask, ACTIVE is
 * everything; EVERYWHERE is so with one, too. */
typedef enum { ANYTIME_ACTIVE = 0, ANYTIME_NEEDED = 1, ANYTIME_EVERYWHERE = 2 } AnytimeWhere;

/* What holds a slot. SCRATCH: with the plan. RUN: with the run, between stages too. LOCAL: only
 * within a fused group, for the few sites that it is at. WINDOW: only within a row tiling, and only
 * some rows of it at a time. HELD: a cache, from level 2 on; the plan then has no windows and no heads,
 * at most 8 stages, and its runs need a cache. */
typedef enum {
  ANYTIME_SCRATCH = 0,
  ANYTIME_RUN = 1,
  ANYTIME_LOCAL = 2,
  ANYTIME_WINDOW = 3,
  ANYTIME_HELD = 4
} AnytimeStorage;

typedef enum { ANYTIME_OK = 0, ANYTIME_FAILED = -1, ANYTIME_NO_MEMORY = -2 } AnytimeStatus;

typedef struct {
  int32_t level;
  int32_t channels;
  int32_t floats; /* 1: float32 whatever the model computes in */
  int32_t storage;
  int32_t zero; /* the byte that stands for 0 in the image; else 0 */
} AnytimeSlot;

typedef struct {
  int32_t kind;
  int32_t where;
  int32_t conv;     /* index in the model, or -1 */
  int32_t norm;     /* index in the model, or -1 for no bias */
  int32_t activation; /* 0: none, 1: ReLU, 2: ReLU6, at most 6 */
  int32_t keep;     /* an interpolation follows and needs the values before ReLU */
  int32_t out;      /* slot */
  int32_t first;    /* channel of the slot that a weighted sum starts to write at */
  int32_t residual; /* slot or -1; may be the same as out */
  int32_t pool;     /* a weighted sum puts out means of 2x2 */
  int32_t fused;    /* done with the next operation, a few sites at a time */
  int32_t tiled;    /* done with the next operation, a few rows at a time; in the first stage */
  int32_t inputs;
  int32_t in[ANYTIME_TERMS]; /* slots */
  float residual_scale; /* of bytes: steps of the output in one of the residual */
  float scale[ANYTIME_TERMS]; /* the same for each input of a weighted sum */
} AnytimeOp;

/* ---- the library ---- */
int32_t anytime_abi(void);
const char* anytime_error(void);
/* The i-th instruction set, fastest first, or NULL after the last; and whether this CPU has it. */
const char* anytime_isa(int32_t i);
int32_t anytime_isa_works(int32_t i);
/* How many threads all runs of this process share. 0 leaves it as it is. Returns the number. */
int32_t anytime_threads(int32_t count);

/* Multiply-adds a second that this instruction set can do at best on all threads, measured for a few
 * milliseconds; negative on failure. */
double anytime_peak(int32_t isa);

/* ---- weights ---- */
AnytimeModel* anytime_model_new(int32_t isa);
void anytime_model_free(AnytimeModel*);
/* Floats as (out, in, kernel, kernel); of an instruction set for bytes they are whole numbers from -127
 * to 127, unless `whole`. `before`: rows and columns of a window above and left of the
 * pixel (stride * y, stride * x) that it belongs to, 1 for a 3x3 convolution padded evenly. `dense`:
 * a 3x3 convolution of stride 1 that is only done in the first stage, together with the next
 * operation; there is a faster way for such. `whole`: of an instruction set for bytes, this convolution
 * takes floats and puts out floats. Returns the convolution's index. */
int32_t anytime_model_conv(AnytimeModel*, const float* weights, int32_t out_channels,
                           int32_t in_channels, int32_t kernel, int32_t stride, int32_t before,
                           int32_t dense, int32_t whole);
/* A convolution of every channel by itself. Floats as (channels, kernel, kernel), the kernel 1, 3, 5
 * or 7 wide, 1 of stride 1 only. `before` is (kernel - stride) / 2. Returns the convolution's index. */
int32_t anytime_model_depthwise(AnytimeModel*, const float* weights, int32_t channels,
                                int32_t kernel, int32_t stride);
/* `scale` multiplies a sum of bytes, or is NULL; `bias` is added to a sum; `shift` is the part of it
 * that comes after an interpolation; `window` holds the interpolation's 49 weights, or is NULL. Returns
 * the norm's index. */
int32_t anytime_model_norm(AnytimeModel*, const float* scale, const float* bias, const float* shift,
                           const float* window, int32_t channels);

/* ---- programs ---- */
/* Slot 0 is the image (level 0), slot 1 the map (level 2, floats). Stage s is the operations from
 * ends[s - 1] to ends[s]; there are stage_count of them. Its exit begins at heads[s] and may be left
 * out; `heads` is NULL where none may be. */
AnytimePlan* anytime_plan_new(const AnytimeModel*, int32_t padded_height, int32_t padded_width,
                              const AnytimeSlot* slots, int32_t slot_count, const AnytimeOp* ops,
                              int32_t op_count, const int32_t* heads, const int32_t* ends,
                              int32_t stage_count);
void anytime_plan_free(AnytimePlan*);
int64_t anytime_plan_bytes(const AnytimePlan*);     /* of scratch */
int64_t anytime_plan_run_bytes(const AnytimePlan*); /* of each run */

/* ---- runs ---- */
AnytimeRun* anytime_run_new(const AnytimePlan*);
void anytime_run_free(AnytimeRun*);
/* Start over with an image of h x w x 3 bytes, value = byte * scale + offset for each channel; or
 * of 3 x h x w normalised floats. It is padded by repeating its border. Where activations are bytes, a
 * value is in steps, its zero included. */
int32_t anytime_run_bytes(AnytimeRun*, const uint8_t*, int32_t height, int32_t width,
                          const float* scale, const float* offset);
int32_t anytime_run_floats(AnytimeRun*, const float*, int32_t height, int32_t width);
/* Go on to exit number `exit`, the same until its map is made, 0 for the next one; the exits before it
 * are left out. For about `slice_us` (0: until it is made). 1: there is more; 0: the map is made. */
int32_t anytime_run_advance(AnytimeRun*, int32_t exit, int64_t slice_us);
/* Measure the map (0: largest probability, 1: entropy, 2: largest value). What `least` <= measure
 * <= `most` stays active, of what was. `decide` 0 leaves the mask as it is. */
int32_t anytime_run_settle(AnytimeRun*, int32_t measure, int32_t decide, float least, float most);
/* Intersect the mask with one byte a pixel, for criteria of the caller's own. */
int32_t anytime_run_mask(AnytimeRun*, const uint8_t* active);
/* Right after the first map: where `active` (one byte a pixel) is 0, the map gets the values of `map`
 * (h x w x channels) and is settled; the rest stays active. */
int32_t anytime_run_prior(AnytimeRun*, const float* map, const uint8_t* active);
/* A cache for the runs of a plan, or of another of the same model, size and program. */
AnytimeCache* anytime_cache_new(const AnytimePlan*);
void anytime_cache_free(AnytimeCache*);
int64_t anytime_cache_bytes(const AnytimeCache*);
/* Right after the image: a plan with HELD slots works in a cache, which is this run's until another
 * takes it. `fresh` (one byte a pixel of the map, NULL for all): where the features are to be made
 * anew. A stage makes those that are fresh, or were when it was left out or stopped: computed where
 * active, interpolated elsewhere, and in the first stage in whole strips of four along rows. All
 * others stay as they are. What is active later must be fresh. A cache of NULL lets go of it. */
int32_t anytime_run_hold(AnytimeRun*, AnytimeCache*, const uint8_t* fresh);
/* Copies: the map as h x w x channels, its confidence and its mask; NULL for what is not wanted. */
int32_t anytime_run_read(const AnytimeRun*, float* map, float* confidence, uint8_t* active);
/* A buffer of the run (not of bytes) as h x w x channels of its level, once a map has been made; 0
 * where no active pixel needs it. */
int32_t anytime_run_read_slot(const AnytimeRun*, int32_t slot, float* values);
/* The operation that the run will go on with: what a profile attributes its time to. */
int32_t anytime_run_operation(const AnytimeRun*);
int64_t anytime_run_macs(const AnytimeRun*); /* multiply-adds since the image */

/* ---- images and labels ---- */
/* h x w x 3 bytes at another size. Fails where a side is smaller than what one pixel of the result
 * is made from. */
int32_t anytime_resize(int32_t isa, const uint8_t* image, int32_t height, int32_t width,
                       int32_t out_height, int32_t out_width, uint8_t* out);
/* `row`, `column` and `channel` are the distances from one to the next in the map, in floats. */
int32_t anytime_decode(int32_t isa, const float* map, int32_t height, int32_t width,
                       int32_t channels, int64_t row, int64_t column, int64_t channel,
                       int32_t out_height, int32_t out_width, uint8_t* labels);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
