/* usae.h - universal sparse autoencoders: the C interface of the Swift core.
 *
 * A universal sparse autoencoder (Thasarathan et al., ICML 2025) learns one sparse code from the activations of several
 * models. Each model has an encoder and a dictionary; a code made by any encoder can be decoded by any dictionary.
 *
 * Conventions, valid for every function:
 *
 *  - The result is a status. Anything but USAE_OK fills `error` (which may be NULL) and leaves both the autoencoder and the
 *    caller's output arrays as they were, unless the comment of the function says otherwise.
 *  - The caller owns every array and every struct it passes; nothing is kept after the call returns.
 *  - Arrays are row-major and dense unless they are a usae_matrix. [a, b] in a comment is a shape.
 *  - "Token" is a row of activations; row t of every model is the same place in the same image. "Concept" is one of the
 *    n_concepts dimensions of the code.
 *  - Functions that take `const usae_sae *` may run at the same time in many threads; those that take `usae_sae *` wait for
 *    the running ones and keep others out while they work.
 *  - Nothing here prints, exits, or calls back except `usae_interrupt`.
 */
#ifndef USAE_H
#define USAE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Statuses and errors ------------------------------------------------------------------------------------------- */

/* Numbers are never reused. */
typedef int32_t usae_status;
enum {
  USAE_OK = 0,
  USAE_INVALID_ARGUMENT = 1, /* a value out of its range, or two that contradict each other */
  USAE_SHAPE_MISMATCH = 2,   /* an array whose size does not fit the autoencoder */
  USAE_UNKNOWN_MODEL = 3,    /* a model index or name that the autoencoder does not have */
  USAE_NOT_FINITE = 4,       /* NaN or infinity in the data, or a loss that overflowed */
  USAE_NOT_INITIALIZED = 5,  /* parameters are asked for before there are any */
  USAE_INTERRUPTED = 6,      /* the interrupt callback asked to stop */
  USAE_OUT_OF_MEMORY = 7
};

/* What went wrong, in words: the argument, what was expected, what came, and the remedy. UTF-8, always terminated. */
typedef struct usae_error {
  char message[1024];
} usae_error;

/* Asked between pieces of work, at most every few tens of milliseconds, on the calling thread; a result other than 0 makes
 * the call return USAE_INTERRUPTED. A NULL pointer to this struct, or a NULL `poll`, means: do not ask. */
typedef struct usae_interrupt {
  int32_t (*poll)(void *context);
  void *context;
} usae_interrupt;

/* --- Activations --------------------------------------------------------------------------------------------------- */

enum { USAE_FLOAT32 = 0, USAE_FLOAT16 = 1, USAE_FLOAT64 = 2, USAE_BFLOAT16 = 3 };

/* Activations of one model where they lie, [outer * inner, columns]: row r is at
 *   data + (r / inner) * outer_stride + (r % inner) * inner_stride,
 * so that [images, tokens, d] with the class token sliced off needs no copy. Strides are in bytes and may be negative. */
typedef struct usae_matrix {
  const void *data;
  int32_t dtype;
  int32_t reserved; /* 0 */
  int64_t outer, inner, columns;
  int64_t outer_stride, inner_stride, column_stride;
} usae_matrix;

/* --- Recipe -------------------------------------------------------------------------------------------------------- */

enum { USAE_ENCODER_LINEAR = 0, USAE_ENCODER_BATCHNORM = 1 };
enum { USAE_SELECTION_TOPK = 0, USAE_SELECTION_BATCHTOPK = 1 };
enum { USAE_PREFIXES_MEAN = 0, USAE_PREFIXES_DRAWN = 1 };
enum { USAE_LOSS_L1 = 0, USAE_LOSS_MSE = 1 };
enum { USAE_AUX_NONE = 0, USAE_AUX_UNCHOSEN = 1, USAE_AUX_DEAD = 2 };
enum { USAE_AUX_SCALE_NONE = 0, USAE_AUX_SCALE_RESIDUAL = 1 };
enum { USAE_UPDATE_ALL = 0, USAE_UPDATE_ENCODER = 1 };
enum { USAE_STATISTIC_SCALAR = 0, USAE_STATISTIC_DIMENSION = 1 };
enum { USAE_INIT_RANDOM = 0, USAE_INIT_TIED = 1, USAE_INIT_DATA = 2 };
enum { USAE_SCHEDULE_CONSTANT = 0, USAE_SCHEDULE_COSINE = 1, USAE_SCHEDULE_LINEAR = 2 };
enum { USAE_CLOCK_GLOBAL = 0, USAE_CLOCK_MODEL = 1 };

enum { USAE_MOST_PREFIXES = 16 };

/* Everything that decides how parameters are learned. Fill `size` with sizeof(usae_recipe). */
typedef struct usae_recipe {
  uint32_t size;
  int32_t encoder;        /* USAE_ENCODER_*: W x + b, or BatchNorm(W x + b); ReLU and TopK follow either */
  int32_t initialization; /* USAE_INIT_RANDOM: torch's Linear and randn dictionaries; TIED: unit random dictionaries, encoder
                             equal to the dictionary; DATA: as TIED with the same data rows in every model's dictionary and
                             the encoder scaled to reconstruct with the right norm */
  int32_t loss;           /* USAE_LOSS_*: mean over elements of |r| or r^2, summed over target models */
  int32_t update;         /* USAE_UPDATE_ALL: the encoder's model and every dictionary; ENCODER: the encoder's model only */
  int32_t center, scale;  /* USAE_STATISTIC_*: standardisation by one number per model or one per dimension */
  int32_t renormalize;    /* 1: dictionary rows are put back to norm 1 after each update */
  double scale_epsilon;   /* added to the standard deviation */
  double dictionary_epsilon; /* added to a dictionary row's norm where it is divided by it */
  int64_t statistics_tokens; /* rows drawn for mean and scale; 0: all */

  int32_t aux;            /* USAE_AUX_*: the code whose reconstruction of the residual is the auxiliary loss: the largest
                             aux_k of all unchosen positive codes, or of those of dead concepts */
  int32_t aux_scale;      /* RESIDUAL: divided by the same loss of (residual - its batch mean), held constant */
  int32_t aux_detach;     /* 1: the residual is a constant target */
  int32_t schedule;       /* USAE_SCHEDULE_* after warm-up */
  int64_t aux_k;          /* 0: n_concepts / 2 for UNCHOSEN, 2 k for DEAD */
  double aux_coefficient;
  int64_t dead_tokens;    /* a concept is dead in a model after this many encoded tokens without firing; 0: never */

  double learning_rate, warmup_learning_rate, final_learning_rate;
  int64_t warmup_steps;
  int64_t total_steps;    /* 0: unknown; the rate stays constant after warm-up */
  double decay_share;     /* the last share of total_steps in which the rate falls; 1: from the end of warm-up */
  int32_t clock;          /* USAE_CLOCK_GLOBAL: one step count; MODEL: a model's schedule advances when it is encoded */
  int32_t selection;      /* USAE_SELECTION_TOPK: a token's k largest positive pre-activations. BATCHTOPK: in training the
                             n_tokens * k largest of the batch, though at most k_max of a token; else those of a token that
                             are above USAE_THRESHOLD, at most k_max (before the first step: its k largest) */
  double beta1, beta2, epsilon, weight_decay; /* AdamW */
  double clip_norm;       /* largest gradient norm of a model's parameters together; 0: no clipping */
  int64_t k_max;          /* with BATCHTOPK, at least k; 0: 4 k. More than n_concepts is n_concepts */
  /* Matryoshka: shares of the concepts, ascending to 1, then zeros. The first share * n_concepts concepts reconstruct by
   * themselves, for each share (one that comes to no concept, or to as many as another, does not count). All 0: the whole
   * code alone. */
  double prefixes[USAE_MOST_PREFIXES];
  double merge_cosine;    /* two concepts whose dictionary rows have a larger cosine in every model become one, and the other
                             starts anew from a token; 0: never */
  int64_t merge_every;    /* with a merge_cosine, above 0: looked for every so many steps, after the warm-up and in the first
                             19/20 of total_steps */
  int32_t prefix_loss;    /* USAE_PREFIXES_MEAN: the loss is the mean over the prefixes; DRAWN: that of one of them, drawn for
                             each step, in half of the steps that of all concepts, and the auxiliary loss is in those alone */
} usae_recipe;

/* --- Life of an autoencoder ---------------------------------------------------------------------------------------- */

typedef struct usae_sae usae_sae;

/* Makes an autoencoder without models. `n_threads` 0 uses the process-wide default (usae_set_threads). On success *out is
 * the caller's and is freed by usae_destroy. */
usae_status usae_create(int64_t n_concepts, int64_t k, uint64_t seed, int32_t n_threads, const usae_recipe *recipe,
                        usae_sae **out, usae_error *error);

/* Frees it. NULL is allowed. No call may be running on it. */
void usae_destroy(usae_sae *sae);

/* Gives the autoencoder its models, `names` and `widths` [n_models], and seeds their parameters without looking at data
 * (DATA initialisation falls back to TIED); mean 0, scale 1. Training starts anew. */
usae_status usae_initialize(usae_sae *sae, int32_t n_models, const char *const *names, const int64_t *widths,
                            usae_error *error);

/* As usae_initialize, with widths, standardisation and, where the recipe says so, dictionaries taken from `inputs`
 * [n_models], which have the same number of rows. */
usae_status usae_initialize_from(usae_sae *sae, int32_t n_models, const char *const *names, const usae_matrix *inputs,
                                 const usae_interrupt *interrupt, usae_error *error);

/* Changes the length of the planned run and the tokens after which a silent concept is dead (both 0: unknown, never). */
usae_status usae_set_plan(usae_sae *sae, int64_t total_steps, int64_t dead_tokens, usae_error *error);

int32_t usae_model_count(const usae_sae *sae); /* 0 before initialisation */

int64_t usae_slots(const usae_sae *sae); /* most active concepts of a token: k, or with BATCHTOPK k_max; NULL has 0 */

/* --- Training ------------------------------------------------------------------------------------------------------ */

/* Fill `size`; the rest is output. */
typedef struct usae_step_report {
  uint32_t size;
  int32_t encoder;         /* index of the encoded model */
  int64_t step;            /* steps done, this one included */
  double loss;             /* auxiliary part included; the main part is the mean over prefixes, or that of the drawn one */
  double auxiliary_loss;   /* before its coefficient */
  double l0;               /* mean number of active concepts */
  double learning_rate;    /* of the encoder's model in this step */
  double gradient_norm;    /* of the encoder's model before clipping; NaN where the step does not need it */
  int64_t dead;            /* concepts dead in the encoder's model before this step */
  int64_t prefix;          /* concepts that had to reconstruct: all, or the first of them where a prefix is drawn */
  /* How the code was found; the code is the same either way. All 0 where the whole product was computed. */
  int64_t screened_tokens;    /* tokens whose pre-activations were estimated from bytes first */
  int64_t screened_candidates; /* concepts that the estimates could not rule out, over all tokens */
  int64_t screened_computed;  /* pre-activations then computed in float32 */
  int64_t screened_fallbacks; /* tokens for which the estimates said nothing */
} usae_step_report;

enum {
  USAE_STEP_TRAIN = 0,
  USAE_STEP_GRADIENTS = 1 /* leave parameters alone and keep the raw gradients for usae_tensor_read */
};

/* One optimisation step on the rows `rows` [n_rows] of `inputs` [n_models] (rows NULL: all rows in order). `encoder` is the
 * model to encode, or -1 to draw it. `losses` [n_models], the main loss by target model, may be NULL. An interrupt or an
 * error leaves the autoencoder as it was before the step. */
usae_status usae_step(usae_sae *sae, int32_t n_models, const usae_matrix *inputs, const int64_t *rows, int64_t n_rows,
                      int32_t encoder, int32_t mode, const usae_interrupt *interrupt, usae_step_report *report,
                      double *losses, usae_error *error);

/* Row numbers of positions [position, position + count) of an endless sequence that visits each of n_rows rows once per
 * pass, in an order that depends on `seed` and the pass alone. `rows` [count]. */
usae_status usae_shuffled_rows(uint64_t seed, int64_t n_rows, int64_t position, int64_t count, int64_t *rows,
                               usae_error *error);

/* Looks at every element of `inputs` [n_models]; USAE_NOT_FINITE with model, row and column if one is NaN or, as float32,
 * infinite. A step checks the rows it trains on, so this is for knowing before a long run. */
usae_status usae_check_finite(const usae_sae *sae, int32_t n_models, const usae_matrix *inputs,
                              const usae_interrupt *interrupt, usae_error *error);

/* --- Steps that several processes share ----------------------------------------------------------------------------- */

/* Data-parallel training: every process has the same autoencoder and some tokens of each batch, and one step of all is the step
 * of one process on all tokens, up to rounding. The library does not know how processes talk. The caller, in every process,
 *
 *   1. usae_shared_begin       takes in this process's tokens
 *   2. tells all processes the tokens of each, and usae_shared_agree
 *   3. for each exchange in order: usae_shared_fill writes this process's part; the caller adds up the parts of all processes;
 *      where the exchange is awaited, usae_shared_take takes the sum before the next part can be filled. The others, gradients
 *      above all, may be on their way while the next is filled.
 *   4. usae_shared_finish      updates from the sums
 *
 * All processes must add to the same bits, and then have the same parameters to the bit. From begin to finish nothing else may
 * change the autoencoder: what would is USAE_INVALID_ARGUMENT; reading is allowed. Nothing changes before finish. A call that
 * fails, begin excepted, ends the step, and the autoencoder is as it was. */

typedef struct usae_shared_opening {
  uint32_t size;         /* fill it; the rest is output */
  int32_t encoder;       /* the model that is encoded, in every process the same */
  int64_t step;          /* steps done before this one */
  int64_t tokens;        /* of this process */
  uint64_t fingerprint;  /* alike in processes whose parameters are; compare them */
} usae_shared_opening;

/* As usae_step, with the rows of this process. */
usae_status usae_shared_begin(usae_sae *sae, int32_t n_models, const usae_matrix *inputs, const int64_t *rows, int64_t n_rows,
                              int32_t encoder, const usae_interrupt *interrupt, usae_shared_opening *opening,
                              usae_error *error);

/* `tokens` [n_processes] of each process, in an order that all agree on, of which this one is number `rank`; all together 2 at
 * least with BatchNorm. How many exchanges there are goes to *n_exchanges. */
usae_status usae_shared_agree(usae_sae *sae, int64_t n_processes, const int64_t *tokens, int64_t rank, int64_t *n_exchanges,
                              usae_error *error);

enum {
  USAE_EXCHANGE_MEANS = 0,          /* BatchNorm: sums of the encoder's tokens [width] */
  USAE_EXCHANGE_COVARIANCE = 1,     /* and the upper triangle of their covariance */
  USAE_EXCHANGE_RESIDUAL_MEANS = 2, /* scaled auxiliary loss: sums of residuals [sum of widths] */
  USAE_EXCHANGE_SPREADS = 3,        /* and of their losses about the mean [n_models] */
  USAE_EXCHANGE_RESTARTS = 4,       /* merging twins: the tokens from which concepts start anew */
  USAE_EXCHANGE_GRADIENT = 5,       /* of a matrix that the step changes, [n_concepts, width] */
  USAE_EXCHANGE_SUMMARY = 6,        /* losses, counts, gradients of the encoder's vectors, what fired; the last */
  USAE_EXCHANGE_UPPER_HALVES = 7,   /* BatchTopK: entries by the upper half of their bits [65536] */
  USAE_EXCHANGE_LOWER_HALVES = 8,   /* and by the lower half, where the smallest that is kept lies [65536] */
  USAE_EXCHANGE_TIES = 9            /* those that equal the smallest [n_processes] */
};

typedef struct usae_exchange {
  uint32_t size;   /* fill it; the rest is output */
  int32_t kind;    /* USAE_EXCHANGE_* */
  int32_t model;   /* -1: of no one model */
  int32_t tensor;  /* of a gradient: USAE_ENCODER_WEIGHT or USAE_DICTIONARY; else -1 */
  int32_t awaited; /* 1: usae_shared_take has to follow usae_shared_fill */
  int32_t reserved;
  int64_t count;   /* float32 numbers, the same in all processes */
} usae_exchange;

usae_status usae_shared_exchange(const usae_sae *sae, int64_t number, usae_exchange *exchange, usae_error *error);

/* This process's part, `data` [count of the exchange]. */
usae_status usae_shared_fill(usae_sae *sae, int64_t number, float *data, int64_t count, const usae_interrupt *interrupt,
                             usae_error *error);

/* The sum of all parts, `sum` [count of the exchange]. */
usae_status usae_shared_take(usae_sae *sae, int64_t number, const float *sum, int64_t count, usae_error *error);

/* The update. `sums` [n_exchanges] and their `counts`, by number of the exchange; those that were taken may be NULL. `report` and
 * `losses` are of the whole batch, but for what screening did in this process. It does not ask for interrupts. */
usae_status usae_shared_finish(usae_sae *sae, int64_t n_exchanges, const float *const *sums, const int64_t *counts,
                               usae_step_report *report, double *losses, usae_error *error);

/* Ends a step that was begun, if there is one. */
usae_status usae_shared_abandon(usae_sae *sae, usae_error *error);

/* --- Use ----------------------------------------------------------------------------------------------------------- */

/* Encodes every row of `x` with model `model`: `values` and `indices` [n, usae_slots], most active first (ties: lower index
 * first); unused slots hold 0 and -1. A token's code does not depend on the other rows. After an interrupt, or a row that is
 * not finite, the outputs are partly written. */
usae_status usae_encode(const usae_sae *sae, int32_t model, const usae_matrix *x, float *values, int32_t *indices,
                        const usae_interrupt *interrupt, usae_error *error);

/* Codes [n, slots] to activations of model `model` in that model's own units, `out` [n, width]; `width` is the caller's
 * and must be the model's. Slots with index -1 are skipped. */
usae_status usae_decode(const usae_sae *sae, int32_t model, int64_t n, int64_t slots, const float *values,
                        const int32_t *indices, int64_t width, float *out, const usae_interrupt *interrupt,
                        usae_error *error);

/* What ReLU and TopK would be given, `out` [n, n_concepts]. */
usae_status usae_preactivations(const usae_sae *sae, int32_t model, const usae_matrix *x, float *out,
                                const usae_interrupt *interrupt, usae_error *error);

/* Outputs of usae_evaluate; M = n_models, m = n_concepts. A NULL pointer skips that output. [i, j]: encoded i, decoded j. */
typedef struct usae_evaluation {
  uint32_t size;
  uint32_t reserved;         /* 0 */
  double *r2;                /* [M, M] in the models' units, against each dimension's mean over these rows */
  double *r2_standardized;   /* [M, M] in standardised units, against each dimension's mean */
  double *r2_scalar_mean;    /* [M, M] in standardised units, against one mean over everything, as published code does */
  double *mse;               /* [M, M] mean squared error per element, models' units */
  double *l0;                /* [M] mean number of active concepts */
  int64_t *firing_counts;    /* [M, m] tokens whose code is above the threshold */
  int64_t *pair_cofire_counts; /* [M, M, m] tokens where it is above the threshold in both models; [i, i] as firing_counts */
  int64_t *cofire_counts;    /* [m] tokens where it is above the threshold in every model */
  int64_t *union_counts;     /* [m] tokens where it is above the threshold in any model */
  double *mean_activation;   /* [M, m] mean code over all tokens */
  float *max_activation;     /* [M, m] */
  double *code_products;     /* [M, M, m] sum over tokens of the product of the two models' codes */
} usae_evaluation;

/* Encodes and decodes every row of `inputs` [n_models] through every pair of models, in one pass; memory does not grow with
 * the number of rows. */
usae_status usae_evaluate(const usae_sae *sae, int32_t n_models, const usae_matrix *inputs, double threshold,
                          usae_evaluation *out, const usae_interrupt *interrupt, usae_error *error);

/* The `n` rows of `x` that fire each concept of model `model` most: `values` and `tokens` [n_concepts, n], the largest code
 * first, ties: earlier row first; 0 and -1 where fewer rows have the concept. Rows come in images of `tokens_per_image`, one
 * after the other, of each of which a concept takes one row at most; 1: any rows. One pass; memory does not grow with the
 * number of rows. */
usae_status usae_top_examples(const usae_sae *sae, int32_t model, const usae_matrix *x, int64_t n,
                              int64_t tokens_per_image, float *values, int64_t *tokens, const usae_interrupt *interrupt,
                              usae_error *error);

/* --- Parameters and training state --------------------------------------------------------------------------------- */

/* Tensors of one model. Shapes: weights and dictionary [n_concepts, width]; mean and scale [width]; the others, where not
 * said, [n_concepts]. float32, except the two int64 ones. BN tensors and their moments exist only with
 * USAE_ENCODER_BATCHNORM; gradients only after usae_step with USAE_STEP_GRADIENTS, until the next step. */
enum {
  USAE_MEAN = 0,
  USAE_SCALE = 1,
  USAE_ENCODER_WEIGHT = 2,
  USAE_ENCODER_BIAS = 3,
  USAE_BN_WEIGHT = 4,
  USAE_BN_BIAS = 5,
  USAE_BN_RUNNING_MEAN = 6,
  USAE_BN_RUNNING_VAR = 7,
  USAE_DICTIONARY = 8, /* as trained: divide rows by (norm + dictionary_epsilon) to use them */
  USAE_THRESHOLD = 9,  /* [1], only with BATCHTOPK: what a code's values have to exceed outside training, a moving average of
                          the smallest activation that a batch kept; 0 before the first step */
  /* first and second moments of AdamW, and gradients: the number of the parameter plus one of these */
  USAE_FIRST_MOMENT = 100,
  USAE_SECOND_MOMENT = 200,
  USAE_GRADIENT = 300,
  USAE_SILENT_TOKENS = 400, /* int64 [n_concepts]: tokens encoded since the concept last fired */
  USAE_COUNTERS = 401       /* int64 [3]: steps of the encoder, steps of the dictionary, tokens encoded */
};

/* Shape of a tensor; a vector has *columns = 0. USAE_INVALID_ARGUMENT where it does not exist. */
usae_status usae_tensor_shape(const usae_sae *sae, int32_t model, int32_t tensor, int64_t *rows, int64_t *columns,
                              usae_error *error);

/* Copies a tensor out, or in. `count` is the number of elements at `data`, checked against the shape. Writing refuses
 * values that are not finite (a second moment may be infinite: a gradient of some 1e19 leaves it so), a scale that is not
 * positive, and negative counters or variances. */
usae_status usae_tensor_read(const usae_sae *sae, int32_t model, int32_t tensor, void *data, int64_t count,
                             usae_error *error);
usae_status usae_tensor_write(usae_sae *sae, int32_t model, int32_t tensor, const void *data, int64_t count,
                              usae_error *error);

/* Training steps done. Together with the tensors above this is the whole training state: random draws depend on the seed
 * and the step alone. */
int64_t usae_step_count(const usae_sae *sae);
usae_status usae_set_step_count(usae_sae *sae, int64_t step, usae_error *error);

/* --- Fourier transforms of images ---------------------------------------------------------------------------------- */

/* The two-dimensional transforms of real images, `image` [planes, height, width], to the halves of their spectra that the
 * other halves follow from: `re` and `im`, real and imaginary parts, [planes, height, width / 2 + 1]. Not normalised:
 * numpy.fft.rfft2. Sides from 1 to 8192; fast where their prime factors are small. `n_threads` as in usae_create; results do
 * not depend on it, nor a plane's on the other planes. The outputs overlap neither each other nor the image, which is not
 * changed. Any number of calls may run at once. On failure the outputs are unchanged. */
usae_status usae_rfft2(int64_t planes, int64_t height, int64_t width, const float *image, float *re, float *im,
                       int32_t n_threads, usae_error *error);

/* The inverse, to `image` [planes, height, width], divided by height * width: numpy.fft.irfft2 with s = (height, width), also
 * where `re` and `im` [planes, height, width / 2 + 1] are no spectrum of a real image. Otherwise as usae_rfft2. */
usae_status usae_irfft2(int64_t planes, int64_t height, int64_t width, const float *re, const float *im, float *image,
                        int32_t n_threads, usae_error *error);

/* --- Images that are optimised --------------------------------------------------------------------------------------- */

enum { USAE_IMAGE_PHASE = 0, USAE_IMAGE_SPECTRUM = 1, USAE_IMAGE_PIXELS = 2 };
enum { USAE_ASCENT_NADAM = 0, USAE_ASCENT_ADAM = 1 };

/* What an image is optimised through, and how. Fill `size` with sizeof(usae_image_options). */
typedef struct usae_image_options {
  uint32_t size;
  int32_t parametrization; /* USAE_IMAGE_PHASE: phases, the magnitudes being fixed; SPECTRUM: real and imaginary parts over
                              the magnitudes; PIXELS */
  int32_t optimizer;       /* USAE_ASCENT_*, with PyTorch's betas */
  int32_t n_threads;       /* as in usae_create; results do not depend on it */
  int64_t height, width;   /* of the canvas, in pixels: 1 to 8192 */
  int64_t steps;           /* planned; the learning rate falls to 0 in them as a cosine */
  int64_t views;           /* in a step, 1 to 1024 */
  double learning_rate;
  double first_crop, last_crop; /* side of the views' crops, as a share of the canvas's shorter side */
  double noise;            /* standard deviation of the views' noise; colours are between 0 and 1 */
  double total_variation, l2; /* weights of these, on the scale of the objective's gradient, which has length 1 */
  double contrast;         /* standard deviation of what the logistic function turns to colours, without `magnitude` */
  uint64_t seed;           /* of start, crops and noise */
  int32_t decorrelate;     /* 1: optimise in a space where natural colours are not correlated */
  int32_t reserved;        /* 0 */
} usae_image_options;

typedef struct usae_maximizer usae_maximizer;

/* Makes one. `magnitude` [3, height, width / 2 + 1] of the frequencies, as of usae_rfft2, for PHASE and SPECTRUM; NULL takes a
 * closed form for natural images. `start` [3, height, width], colours from 0 to 1; NULL starts from noise. On success *out is
 * the caller's and is freed by usae_maximizer_destroy. */
usae_status usae_maximizer_create(const usae_image_options *options, const float *magnitude, const float *start,
                                  usae_maximizer **out, usae_error *error);

/* Frees it. NULL is allowed. No call may be running on it. */
void usae_maximizer_destroy(usae_maximizer *maximizer);

/* What a model looks at: images of height x width pixels, whose colours c between 0 and 1 have become (c - mean) / std. Means
 * are from -1e6 to 1e6, deviations from 1e-6 to 1e6. */
typedef struct usae_view {
  uint32_t size;
  uint32_t reserved; /* 0 */
  int64_t height, width;
  double mean[3], std[3];
} usae_view;

/* Views of the present image for a model, `out` [views, 3, height, width]: random crops, resized without aliasing, with noise.
 * They depend on the image, the seed and the number of steps done. */
usae_status usae_maximizer_views(usae_maximizer *maximizer, const usae_view *view, float *out, const usae_interrupt *interrupt,
                                 usae_error *error);

/* Takes the gradient of the objective with respect to these views, `gradient` [views, 3, height, width]. It becomes a gradient
 * of the image, whose length goes to *norm (may be NULL), and which counts with length `weight`, -1e6 to 1e6; several models'
 * are added up. It may be as small or as large as float32 is. On failure nothing is added. */
usae_status usae_maximizer_add_gradient(usae_maximizer *maximizer, const usae_view *view, double weight, const float *gradient,
                                        double *norm, const usae_interrupt *interrupt, usae_error *error);

/* One step uphill along what was added, which is used up. After a failure or an interrupt the step has not begun. */
usae_status usae_maximizer_advance(usae_maximizer *maximizer, const usae_interrupt *interrupt, usae_error *error);

int64_t usae_maximizer_step_count(const usae_maximizer *maximizer); /* -1 for NULL */

/* The image, `out` [3, height, width], and how much each pixel had to do with the objective so far, `out` [height, width]. */
usae_status usae_maximizer_image(usae_maximizer *maximizer, float *out, usae_error *error);
usae_status usae_maximizer_attribution(const usae_maximizer *maximizer, float *out, usae_error *error);

/* Where this step's views are, `out` [views, 4]: top, left, height, width. */
usae_status usae_maximizer_boxes(const usae_maximizer *maximizer, int64_t *out, usae_error *error);

/* Gradients that were added in this step: with respect to the colours, and to what colours are made of, both [3, height,
 * width]. For tests. */
usae_status usae_maximizer_gradients(usae_maximizer *maximizer, float *colours, float *planes, usae_error *error);

/* Boxes [n_boxes, 4] of an image [3, height, width], resized and scaled as such views are, without noise: `out` [n_boxes, 3,
 * view height, view width]. All boxes have the same size. */
usae_status usae_crop_resize(int64_t height, int64_t width, const float *image, int64_t n_boxes, const int64_t *boxes,
                             const usae_view *view, float *out, int32_t n_threads, usae_error *error);

enum {
  USAE_OBJECTIVE_ALIGNMENT = 0,     /* (a . w) max(0.1, cos(a, w))^power, a being the standardised token, w the encoder's row */
  USAE_OBJECTIVE_PREACTIVATION = 1, /* what ReLU and the selection are given */
  USAE_OBJECTIVE_CODE = 2,          /* what they leave */
  USAE_OBJECTIVE_LOG_SUM_EXP = 3    /* soft maximum of pre-activations: log of the mean over tokens of their exponentials */
};

/* How much activations `x` [n_views * n_tokens, width] of a model show a concept: `values` [n_views], means over a view's tokens
 * (`token` -1) or that of one token, and `gradient` [n_views * n_tokens, width] of the mean over views. After an interrupt the
 * outputs are partly written. */
usae_status usae_objective(const usae_sae *sae, int32_t model, int64_t concept_index, int32_t objective, double power,
                           int64_t token, int64_t n_views, const usae_matrix *x, double *values, float *gradient,
                           const usae_interrupt *interrupt, usae_error *error);

/* --- The process --------------------------------------------------------------------------------------------------- */

/* Default number of threads for autoencoders made with n_threads = 0; 0 goes back to the number of cores this process may
 * use. Results do not depend on it. */
usae_status usae_set_threads(int32_t n_threads, usae_error *error);
int32_t usae_threads(void);

/* What is in use: "amx", "avx512vnni", "avxvnni", "avx512", "avx2", "dotprod" or "portable" (environment variable USAE_KERNELS
 * forces another that the processor has); OpenBLAS's own description of itself. Static storage. */
const char *usae_kernels(void);
const char *usae_blas(void);
const char *usae_version(void);

#ifdef __cplusplus
}
#endif
#endif
