/* usae.h - universal sparse autoencoders: the C interface of the Swift core.
 *
 * A universal sparse autoencoder (Thasarathan et al., ICML 2025) learns one sparse code from the activations of several models.
 * Each model has an encoder and a dictionary. A code that any encoder made can be decoded by any dictionary.
 *
 * This header is the whole library. usae_testing.h beside it has what only tests and benchmarks of the library call.
 *
 * Conventions, valid for every function:
 *
 *  - Status. A function that can fail returns one. Anything but USAE_OK fills `error`, which may be NULL. The handle and the
 *    caller's output arrays are then as they were before the call, unless the function's comment says otherwise.
 *  - Ownership. The caller owns every array and every struct that it passes, and the library keeps no address of them after the
 *    call. Handles (usae_sae, usae_maximizer) are made by the library and freed by its two _destroy functions.
 *  - NULL is USAE_INVALID_ARGUMENT for a pointer whose comment does not say what NULL does.
 *  - Arrays are row-major and dense unless they are a usae_matrix. [a, b] in a comment is a shape.
 *  - Threads. Any function may be called in any thread. Calls that take a `const` handle run at the same time; a call that
 *    takes one without `const` waits for the others on this handle and keeps them out while it works.
 *  - Nothing here prints, exits, or calls back except `usae_interrupt`.
 *  - Structs that begin with `size` may grow at their end in later versions. Fill `size` with sizeof. A program that was
 *    compiled with an older header passes a shorter struct: a field that it lacks has its default where the struct is input,
 *    and is not written where it is output. A program that was compiled with a newer header passes a longer struct: the bytes
 *    that this library does not know must be 0 where the struct is input, and are not written where it is output. In a field
 *    that is added, 0 means what the library did before. A size below the least that the struct's comment names (8 where it
 *    names none), above 4096, or that is no multiple of 8 is USAE_INVALID_ARGUMENT.
 *  - A field `reserved` must be 0 where the struct is input, and is set to 0 where it is output.
 *  - "Token" is a row of activations; row t of every model is the same place in the same image. "Concept" is one of the
 *    n_concepts dimensions of the code.
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
  USAE_NOT_FINITE = 4,       /* NaN or infinity in the data, or a number computed from it that overflowed */
  USAE_NOT_INITIALIZED = 5,  /* parameters are asked for before there are any */
  USAE_INTERRUPTED = 6,      /* the interrupt callback asked to stop */
  USAE_OUT_OF_MEMORY = 7
};

/* What went wrong, in words: the argument, what was expected, what came, and the remedy. UTF-8, always terminated. */
typedef struct usae_error {
  char message[1024];
} usae_error;

/* A way to stop a long call, and to follow it. `poll` is called with `context` on the thread that made the call, every few tens
 * of milliseconds at most; a result other than 0 makes the call return USAE_INTERRUPTED. Where a function takes one, NULL and a
 * NULL `poll` mean that the call cannot be stopped. */
typedef struct usae_interrupt {
  int32_t (*poll)(void *context);
  void *context;
  /* NULL, or what usae_evaluate and usae_top_examples call with `context`, on the same thread, after each part of their rows:
   * with the number of rows that are done. */
  void (*progress)(void *context, int64_t rows);
} usae_interrupt;

/* --- Activations --------------------------------------------------------------------------------------------------- */

enum { USAE_FLOAT32 = 0, USAE_FLOAT16 = 1, USAE_FLOAT64 = 2, USAE_BFLOAT16 = 3 };

/* One model's activations in the caller's memory, [outer * inner, columns]. Row r is at
 *   data + (r / inner) * outer_stride + (r % inner) * inner_stride,
 * so that [images, tokens, d] without its class token needs no copy. Strides are in bytes and may be negative. Rows and columns
 * are at most 2^40. `data` may be NULL only where there are no elements.
 *
 * If `rows` [n_rows] is not NULL, the matrix is [n_rows, columns] and has only these of the rows above, whose numbers have to
 * increase. The others are never read. An error, and usae_top_examples, number rows as above. */
typedef struct usae_matrix {
  const void *data;
  int32_t dtype; /* USAE_FLOAT32, ... */
  int32_t reserved;
  int64_t outer, inner, columns;
  int64_t outer_stride, inner_stride, column_stride;
  const int64_t *rows; /* NULL: all rows; n_rows is 0 then */
  int64_t n_rows;
} usae_matrix;

/* --- Recipe -------------------------------------------------------------------------------------------------------- */

/* Choices. Where a recipe is written with words, the name of a choice is its last word in lower case: "batchnorm". */
enum { USAE_INIT_RANDOM = 0, USAE_INIT_TIED = 1, USAE_INIT_DATA = 2 };
enum { USAE_STATISTIC_SCALAR = 0, USAE_STATISTIC_DIMENSION = 1 };
enum { USAE_ENCODER_LINEAR = 0, USAE_ENCODER_BATCHNORM = 1 };
enum { USAE_SELECTION_TOPK = 0, USAE_SELECTION_BATCHTOPK = 1 };
enum { USAE_LOSS_L1 = 0, USAE_LOSS_MSE = 1 };
enum { USAE_PREFIXES_MEAN = 0, USAE_PREFIXES_DRAWN = 1 };
enum { USAE_AUX_NONE = 0, USAE_AUX_UNCHOSEN = 1, USAE_AUX_DEAD = 2 };
enum { USAE_AUX_SCALE_NONE = 0, USAE_AUX_SCALE_RESIDUAL = 1 };
enum { USAE_UPDATE_ALL = 0, USAE_UPDATE_ENCODER = 1 };
enum { USAE_SCHEDULE_CONSTANT = 0, USAE_SCHEDULE_COSINE = 1, USAE_SCHEDULE_LINEAR = 2 };
enum { USAE_CLOCK_GLOBAL = 0, USAE_CLOCK_MODEL = 1 };
enum { USAE_ENCODED_ONE = 0, USAE_ENCODED_TWO = 1, USAE_ENCODED_ALL = 2 };
enum { USAE_DICTIONARY_UNIT = 0, USAE_DICTIONARY_BOUNDED = 1 };
enum { USAE_AGREEMENT_PREACTIVATIONS = 0, USAE_AGREEMENT_CODES = 1 };

enum { USAE_MOST_PREFIXES = 16 };

/* Everything that decides how parameters are learned. Fill `size`, let usae_recipe_preset fill the rest, and change what should
 * differ. Switches are 0 or 1; usae_recipe_field_at tells the limits of numbers. Defaults are those of USAE_PRESET_DEFAULT. */
typedef struct usae_recipe {
  uint32_t size;

  /* Before the first step */
  int32_t initialization;     /* USAE_INIT_RANDOM: PyTorch's Linear, and dictionaries of normal numbers. TIED: dictionary rows
                                 of random directions and norm 1, the encoder equal to the dictionary. DATA: as TIED, but with
                                 the same rows of data in every model's dictionary, and the encoder scaled so that
                                 reconstructions have the right norm. Default: DATA. */
  int32_t center;             /* USAE_STATISTIC_*: one mean is subtracted, or one for each dimension. Default: DIMENSION. */
  int32_t scale;              /* USAE_STATISTIC_*: the divisor is one deviation, or one for each dimension. Default: SCALAR. */
  double scale_epsilon;       /* Added to the standard deviations: the number itself where the model's deviation is at least
                                 1/4, else 4 times its product with the deviation. Default: 1e-5. */
  int64_t statistics_tokens;  /* Rows that mean and deviation are computed from. 0: all. Default: 200000. */

  /* Code */
  int32_t encoder;            /* USAE_ENCODER_LINEAR: W x + b. BATCHNORM: BatchNorm(W x + b). ReLU and then the selection
                                 follow either. Default: LINEAR. */
  int32_t selection;          /* USAE_SELECTION_TOPK: the k largest positive pre-activations of a token. BATCHTOPK: in training
                                 the n_tokens * k largest of the batch, rounded down; otherwise those of a token that are above
                                 USAE_THRESHOLD (before the first step, its k largest, rounded up). Default: TOPK. */
  int64_t k_max;              /* Largest number of active concepts of one token with BATCHTOPK: at least k, capped at
                                 n_concepts. 0 means 4 k, rounded up. Default: 0. */

  /* Dictionary */
  double dictionary_epsilon;  /* Added to the norm of a dictionary row where the row is divided by it, with
                                 USAE_DICTIONARY_UNIT. Default: 1e-8. */
  int32_t renormalize;        /* 1: dictionary rows are put back after each update to the norm that dictionary_norm
                                 lets them have. Default: 1. */

  /* Main loss */
  int32_t loss;               /* USAE_LOSS_*: mean over elements of |residual| or its square, summed over the decoded models,
                                 each times its weight (same_model_weight). Default: MSE. */
  double prefixes[USAE_MOST_PREFIXES]; /* Matryoshka: shares of the concepts, ascending to 1, then zeros. For each share, the
                                 first share * n_concepts concepts reconstruct by themselves. A share counts if it comes to at
                                 least one concept and to more than the share before it. All 0: only the whole code
                                 reconstructs. Default: 0.25, 0.5, 0.75, 1. */
  int32_t prefix_loss;        /* USAE_PREFIXES_MEAN: the loss is the mean over the prefixes. DRAWN: each step draws one prefix
                                 and uses its loss. Half of the steps draw all concepts; only these have an auxiliary loss.
                                 Default: DRAWN. */

  /* Auxiliary loss: a second code has to reconstruct the residual */
  int32_t aux;                /* USAE_AUX_NONE: there is none. UNCHOSEN, the published AuxK: its code is the aux_k largest
                                 of the positive pre-activations that were not selected. DEAD: the aux_k largest of those of
                                 dead concepts, for one token in aux_every. Default: DEAD. */
  int32_t aux_scale;          /* USAE_AUX_SCALE_RESIDUAL: the auxiliary loss is divided by the loss of predicting the residual's
                                 batch mean, which is held constant. Default: RESIDUAL. */
  int32_t aux_detach;         /* 1: the residual is a constant target. Default: 1. */
  int64_t aux_k;              /* 0: n_concepts / 2 for UNCHOSEN, 2 k, rounded up, for DEAD. Default: 0. */
  double aux_coefficient;     /* Weight of the auxiliary loss. Default: 0.03125. */
  int64_t dead_tokens;        /* A concept is dead in a model that has encoded this many tokens since the concept last fired.
                                 0: concepts are never dead. Default: 1000000. */

  /* Duplicate concepts */
  double merge_cosine;        /* Two concepts whose dictionary rows have a larger cosine in every model are duplicates: one
                                 takes the place of both, the other starts again from a token; in a model that the batch
                                 does not have, from what the token's code predicts there. 0: never. Default: 0.8. */
  int64_t merge_every;        /* Steps from one search for duplicates to the next; there is none during the warm-up and in the
                                 last 1/20 of total_steps. Default: 50. */

  /* Update: AdamW */
  double beta1;               /* Default: 0.9. */
  double beta2;               /* Default: 0.999. */
  double epsilon;             /* Default: 1e-8. */
  double weight_decay;        /* Default: 0. */
  double clip_norm;           /* Largest norm of one model's gradients together. 0: gradients are not clipped. Default: 0. */
  int32_t update;             /* USAE_UPDATE_ALL: a step changes the encoded model and every dictionary. ENCODER: the encoded
                                 model alone. Default: ALL. */

  /* Learning rate: a linear warm-up, a constant part, a decay */
  int32_t schedule;           /* USAE_SCHEDULE_*: form of the decay; CONSTANT is none. Default: LINEAR. */
  int32_t clock;              /* USAE_CLOCK_GLOBAL: all models count all steps. MODEL: each counts the steps that encoded it;
                                 the dictionary of a model that is not encoded has the encoded models' smallest count.
                                 Default: GLOBAL. */
  int32_t first_step_full;    /* 1: the first step that a clock counts has the full rate, before the warm-up goes on from its
                                 second step. Default: 0. */
  int32_t warmup_inclusive;   /* 1: the last step of the warm-up has the full rate. 0: the step after it does. Default: 0. */
  int32_t reserved;
  double learning_rate;       /* Of the constant part; see step_limit. Default: 7e-3. */
  double warmup_learning_rate; /* Where the warm-up starts. Default: 0. */
  double final_learning_rate; /* Where the decay ends. Default: 0. */
  int64_t warmup_steps;       /* Default: 100. */
  int64_t total_steps;        /* 0: unknown, so that there is no decay. Default: 0. */
  double decay_share;         /* Share of total_steps that is decay. 1: it begins where the warm-up ends. Default: 0.2. */

  /* Outlying rows */
  double outlier_multiple;    /* A row is outlying in a model if it is farther from the centre than this multiple of the median
                                 distance. Outlying rows count for neither mean nor deviation, if they are at most 1/20 of the
                                 rows. In training, tokens longer than this multiple of sqrt(width), which is about the length
                                 of a typical one, are shortened to sqrt(width), but for models of mean 0
                                 and scale 1, whose tokens may have any length. 0: no row is outlying. Default: 5. */

  /* Auxiliary loss, continued */
  int64_t aux_every;          /* With USAE_AUX_DEAD, one token in so many has an auxiliary code: one that is drawn in each step
                                 from each aux_every rows of the batch that follow each other. 1: every token. Default: 8. */

  /* Learning rate, continued */
  double step_limit;          /* How far a step may move pre-activations: the rate of a model's constant part is
                                 min(learning_rate, step_limit * sqrt(D) / width), with D its USAE_EFFECTIVE_DIMENSIONS, or
                                 32 if that is more.
                                 0: learning_rate in every model. Default: 0.15. */

  /* Agreement */
  int32_t encoded_models;     /* USAE_ENCODED_*: how many models encode each token of a step. The loss is the mean over them.
                                 Of an autoencoder with fewer models, all do. Default: TWO. */
  int32_t agreement_on;       /* USAE_AGREEMENT_PREACTIVATIONS: the encoders of a step should agree in the pre-activations p of
                                 each concept that one of them selects; CODES: in the codes, which are 0 where a concept is not
                                 selected. Default: PREACTIVATIONS. */
  double agreement;           /* Weight of the term sum over c of (p_i,c - p_j,c)^2 / agreement_scale, a mean over tokens and
                                 pairs i, j of encoders. A step of one encoder has none. 0: there is none. Default:
                                 0.03. */
  double agreement_scale;     /* 0: the mean width of the models. Default: 100. */
  double agreement_start;     /* Share of the run after which the weight rises from 0. With total_steps = 0 the weight is
                                 agreement in every step. Default: 0.3. */
  double agreement_full;      /* Share of the run after which the weight is agreement. Default: 0.8. */

  /* Dictionary, continued */
  int32_t dictionary_norm;    /* USAE_DICTIONARY_UNIT: codes are decoded by the dictionary's rows divided by (norm +
                                 dictionary_epsilon); BOUNDED: rows with a norm above 1 are divided by it, the others are as
                                 they are. Default: BOUNDED. */

  /* Code, continued */
  double input_noise;         /* Standard deviation of the noise that is added to the standardised activations that encoders
                                 read in training. What has to be reconstructed has none. 0: there is none. Default: 0. */

  /* Main loss, continued */
  double same_model_weight;   /* Weight of the encoded model's own reconstruction in the loss, where each other model's is 1.
                                 All are then divided by their mean. From 1e-3 to 1e3. Default: 1. */
} usae_recipe;

enum {
  USAE_PRESET_DEFAULT = 0,  /* what the project's measurements show to be best */
  USAE_PRESET_PUBLISHED = 1 /* Thasarathan et al. as their code trains; total_steps are the caller's to set */
};

/* Fills a recipe, of which only `size` is read. */
usae_status usae_recipe_preset(int32_t preset, usae_recipe *recipe, usae_error *error);

enum {
  USAE_FIELD_CHOICE = 0, /* int32_t, one of n_choices */
  USAE_FIELD_SWITCH = 1, /* int32_t, 0 or 1 */
  USAE_FIELD_COUNT = 2,  /* int64_t */
  USAE_FIELD_NUMBER = 3, /* double */
  USAE_FIELD_SHARES = 4  /* double[USAE_MOST_PREFIXES] */
};

/* One field of usae_recipe, for a caller that sets fields by name. Fill `size`; the rest is output. */
typedef struct usae_recipe_field {
  uint32_t size;
  int32_t kind;               /* USAE_FIELD_* */
  int32_t offset;             /* in usae_recipe, in bytes. A caller whose usae_recipe ends before it leaves the field alone. */
  int32_t zero_is_none;       /* 1: 0, or no shares, stands for "none" or for what the library chooses */
  const char *name;           /* as in usae_recipe; never freed */
  const char *const *choices; /* [n_choices] names of the numbers from 0 up, never freed; NULL for other kinds */
  int64_t n_choices;
  double smallest, largest;   /* limits of a count, a number or a share */
} usae_recipe_field;

/* The fields of usae_recipe, without `size` and `reserved`, are numbered from 0 to usae_recipe_field_count() - 1. */
int64_t usae_recipe_field_count(void);
usae_status usae_recipe_field_at(int64_t number, usae_recipe_field *field, usae_error *error);

/* --- Life of an autoencoder ---------------------------------------------------------------------------------------- */

typedef struct usae_sae usae_sae;

/* Makes an autoencoder without models. `k` is from 1 to n_concepts: the number of active concepts of a token, or with
 * USAE_SELECTION_BATCHTOPK the mean number, which need not be a whole one. `n_threads` 0 takes the process's default
 * (usae_set_threads). On success *out is a handle that the caller frees with usae_destroy; on failure *out is unchanged. */
usae_status usae_create(int64_t n_concepts, double k, uint64_t seed, int32_t n_threads, const usae_recipe *recipe,
                        usae_sae **out, usae_error *error);

/* Frees the handle. NULL does nothing. No call may be running on it. */
void usae_destroy(usae_sae *sae);

/* Gives the autoencoder its models, `names` and `widths` [n_models], and seeds their parameters without looking at data:
 * mean 0, scale 1, and dictionaries of random directions in place of USAE_INIT_DATA. Training starts again. Names are UTF-8. */
usae_status usae_initialize(usae_sae *sae, int32_t n_models, const char *const *names, const int64_t *widths,
                            usae_error *error);

/* The same with `activations` [n_models], from which standardisation and, with USAE_INIT_DATA, dictionaries are taken. A model
 * whose rows are all equal is USAE_INVALID_ARGUMENT. */
usae_status usae_initialize_from(usae_sae *sae, int32_t n_models, const char *const *names, const usae_matrix *activations,
                                 const usae_interrupt *interrupt, usae_error *error);

/* The same from several parts of the data, `activations` [n_parts, n_models], 1 to 2^20. Rows are aligned within a part. A part
 * need not have all models; an absent one is a matrix that is 0 in all fields. A model's standardisation comes from its rows in
 * all parts. Initial dictionaries come from rows that are aligned between all models first; concepts that are left take rows of
 * fewer, each model its own where no others belong to them. In errors, a part's number follows the name of the model. */
usae_status usae_initialize_from_parts(usae_sae *sae, int32_t n_models, const char *const *names, int64_t n_parts,
                                       const usae_matrix *activations, const usae_interrupt *interrupt, usae_error *error);

/* What the rows were like from which usae_initialize_from took a model's mean and deviation. Fill `size`, and the addresses of
 * arrays that are wanted; NULL, which is the default of each, skips that output. The numbers are output. */
typedef struct usae_sample {
  uint32_t size;
  uint32_t reserved;
  double *center;            /* [width] what is subtracted */
  double *deviation;         /* [width] standard deviation about it */
  int64_t rows;              /* of the sample */
  int64_t outlying_rows;     /* farther from the centre than outlier_multiple, or 5 where it is 0, times the median distance */
  int64_t left_out_rows;     /* of these, those that count for neither centre nor deviation: all or none */
  int64_t identical_rows;    /* the most rows that are equal, if they are more than one in a hundred; else 1 */
  double median_distance;    /* of rows from the centre; rows that are equal to many others do not count */
  double largest_distance;
} usae_sample;

/* Describes the sample of model `model`, whose width must be `width`. Where there was none, because parameters were seeded,
 * `rows` is 0 and the rest is as it was. */
usae_status usae_describe_sample(const usae_sae *sae, int32_t model, int64_t width, usae_sample *sample, usae_error *error);

/* Changes total_steps and dead_tokens of the recipe. */
usae_status usae_set_plan(usae_sae *sae, int64_t total_steps, int64_t dead_tokens, usae_error *error);

/* Freezes model `model`, or with `frozen` 0 lets it train again: steps leave its encoder, its dictionary and all that belongs
 * to them as they are, and merge no concepts. A step draws the first model that it encodes among those that are not frozen.
 * It is not saved, and shared steps refuse frozen models. */
usae_status usae_set_frozen(usae_sae *sae, int32_t model, int32_t frozen, usae_error *error);

/* --- What an autoencoder is ---------------------------------------------------------------------------------------- */

/* None of these waits, not even for a step that is under way. For NULL the numbers are 0. */

int64_t usae_concepts(const usae_sae *sae);
double usae_k(const usae_sae *sae);
int64_t usae_slots(const usae_sae *sae); /* most active concepts of a token: k, or with BATCHTOPK k_max */
uint64_t usae_seed(const usae_sae *sae);
int64_t usae_step_count(const usae_sae *sae);
int32_t usae_model_count(const usae_sae *sae);                /* 0 before initialisation */
int64_t usae_model_width(const usae_sae *sae, int32_t model); /* 0 where there is no such model */

/* Writes the name of a model and a terminator to `name` [capacity], cut after a whole character where it is too long. The
 * result is how many bytes the whole name and its terminator have, 0 where there is no such model. `name` may be NULL with
 * capacity 0. */
int64_t usae_model_name(const usae_sae *sae, int32_t model, char *name, int64_t capacity);

/* Fills a recipe, of which only `size` is read, with that of the autoencoder as it is now. */
usae_status usae_current_recipe(const usae_sae *sae, usae_recipe *recipe, usae_error *error);

/* --- Training ------------------------------------------------------------------------------------------------------ */

/* What a step did. Fill `size`; the rest is output. */
typedef struct usae_step_report {
  uint32_t size;
  int32_t encoder;             /* index of the encoded model, or of the first where there are several */
  int64_t step;                /* steps done, this one included */
  double loss;                 /* main loss (the mean over prefixes, or that of the drawn one), weighted auxiliary loss and
                                  weighted agreement; means over the encoded models */
  double auxiliary_loss;       /* without its weight */
  double l0;                   /* mean number of active concepts of a token */
  double learning_rate;        /* of the (first) encoded model in this step; so are the next two */
  double gradient_norm;        /* of the encoded model's gradient before clipping; NaN where the step does not need it */
  int64_t dead;                /* concepts that were dead in the encoded model before this step */
  int64_t prefix;              /* concepts that had to reconstruct: all, or the first of them where a prefix is drawn */
  /* How the code was found; the code is the same either way. All 0 where the whole product was computed. */
  int64_t screened_tokens;     /* tokens whose pre-activations were estimated from int8 products first */
  int64_t screened_candidates; /* concepts that the estimates could not rule out, over all tokens */
  int64_t screened_computed;   /* pre-activations that were then computed in float32 */
  int64_t screened_fallbacks;  /* tokens whose estimates ruled nothing out */
  /* Of steps that encode several models */
  int32_t n_encoders;          /* 1, 2 or all of the batch; after the second, encoders are in the order of their indices */
  int32_t second_encoder;      /* -1: there is none */
  double agreement;            /* the agreement term without its weight; 0 where the loss has none */
} usae_step_report;

enum {
  USAE_STEP_TRAIN = 0,
  USAE_STEP_GRADIENTS = 1 /* changes no parameter, and keeps the gradients before clipping for usae_tensor_read */
};

/* Writes to `encoders` [n_models] the models that the next step encodes, and how many they are to *n_encoders. `encoder` is the
 * first of them; -1 draws it. Another is drawn with USAE_ENCODED_TWO; with ALL the others follow in the order of their
 * indices. */
usae_status usae_step_encoders(const usae_sae *sae, int32_t encoder, int32_t *encoders, int32_t *n_encoders,
                               usae_error *error);

/* The same of a step whose batch has the models whose entry of `present` [n_models] is 1; that of the others is 0. */
usae_status usae_batch_encoders(const usae_sae *sae, int32_t n_models, const int32_t *present, int32_t encoder,
                                int32_t *encoders, int32_t *n_encoders, usae_error *error);

/* One training step on the rows `rows` [n_rows] of `activations` [n_models]; `rows` NULL takes all in order. A matrix that is 0
 * in all fields is that of a model which the batch does not have: the step does not encode it, does not decode to it, and
 * changes nothing of it unless it merges concepts (merge_every); its losses are NaN. At least one model has to be there. Rows
 * times encoded models are at most 2^24. `encoder` is as of usae_step_encoders. `mode` is USAE_STEP_*. `report` may be NULL,
 * and so may `losses` [n_encoders, n_models], the main loss of each encoded and decoded model without its weight. An interrupt
 * or an error leaves the autoencoder as it was before the step. */
usae_status usae_step(usae_sae *sae, int32_t n_models, const usae_matrix *activations, const int64_t *rows, int64_t n_rows,
                      int32_t encoder, int32_t mode, const usae_interrupt *interrupt, usae_step_report *report,
                      double *losses, usae_error *error);

/* Writes to `rows` [count] a part of an endless sequence of row numbers, from `position` on. The sequence visits each of n_rows
 * rows once in every pass, in an order that depends on `seed` and the pass alone. */
usae_status usae_shuffled_rows(uint64_t seed, int64_t n_rows, int64_t position, int64_t count, int64_t *rows,
                               usae_error *error);

/* Checks every element of `activations` [n_models], which may lack models as those of usae_step. One that is NaN or, as
 * float32, infinite, or whose square overflows when it is standardised, is USAE_NOT_FINITE, and the error names its model, row
 * and column. A step checks the rows that it trains on; this finds such a row before a long run. */
usae_status usae_check_finite(const usae_sae *sae, int32_t n_models, const usae_matrix *activations,
                              const usae_interrupt *interrupt, usae_error *error);

/* --- Steps that several processes share ----------------------------------------------------------------------------- */

/* Data-parallel training. Every process has the same autoencoder and some tokens of each batch; what they do together is the
 * step of one process on all tokens, up to rounding. The library does not know how processes communicate. In every process the
 * caller
 *
 *   1. calls usae_shared_begin with this process's tokens,
 *   2. tells all processes how many tokens each has, and calls usae_shared_agree,
 *   3. for each exchange in order, lets usae_shared_fill write this process's part, and adds up the parts of all processes. If
 *      the exchange is awaited, usae_shared_take must be given the sum before the next part is filled. The others, gradients
 *      above all, may be exchanged meanwhile,
 *   4. calls usae_shared_finish, which updates from the sums.
 *
 * All processes must use the same bits of the sums; their parameters then stay equal to the bit. Nothing changes before finish.
 * From begin to finish the autoencoder can be read, and any other call that would change it is USAE_INVALID_ARGUMENT. If agree,
 * fill, take or finish fails, the step has ended and the autoencoder is as it was.
 *
 * Sums are other processes' numbers, so each is checked before it is used: one that is not finite is USAE_NOT_FINITE, and one
 * that no processes can have, such as a count that other counts contradict, is USAE_INVALID_ARGUMENT. */

/* Fill `size`; the rest is output. */
typedef struct usae_shared_opening {
  uint32_t size;
  int32_t encoder;       /* the (first) model that is encoded, in every process the same */
  int64_t step;          /* steps done before this one */
  int64_t tokens;        /* of this process */
  uint64_t fingerprint;  /* equal in processes whose parameters are equal */
  uint64_t present;      /* equal in processes whose batches have the same models, as they must */
} usae_shared_opening;

/* Arguments as of usae_step, with the rows of this process. */
usae_status usae_shared_begin(usae_sae *sae, int32_t n_models, const usae_matrix *activations, const int64_t *rows,
                              int64_t n_rows, int32_t encoder, const usae_interrupt *interrupt, usae_shared_opening *opening,
                              usae_error *error);

/* `tokens` [n_processes] are those of each process, of 1 to 2^20, in an order that all agree on; this process is number `rank`.
 * With BatchNorm they must add up to at least 2. The number of exchanges goes to *n_exchanges. */
usae_status usae_shared_agree(usae_sae *sae, int64_t n_processes, const int64_t *tokens, int64_t rank, int64_t *n_exchanges,
                              usae_error *error);

enum {
  USAE_EXCHANGE_MEANS = 0,          /* BatchNorm: sums of the encoded model's tokens [width] */
  USAE_EXCHANGE_COVARIANCE = 1,     /* and the upper triangle of their covariance */
  USAE_EXCHANGE_RESIDUAL_MEANS = 2, /* scaled auxiliary loss: sums of residuals [encoders with dead concepts, sum of widths],
                                       here and below of the models that the batch has */
  USAE_EXCHANGE_SPREADS = 3,        /* and of their losses about the mean [encoders with dead concepts, models] */
  USAE_EXCHANGE_RESTARTS = 4,       /* duplicate concepts: the tokens from which freed concepts start again */
  USAE_EXCHANGE_GRADIENT = 5,       /* of a matrix that the step changes, [n_concepts, width] */
  USAE_EXCHANGE_SUMMARY = 6,        /* the last: losses, counts, gradients of encoders' vectors, concepts that fired */
  USAE_EXCHANGE_UPPER_HALVES = 7,   /* BatchTopK: how many entries have each upper half of bits [65536] */
  USAE_EXCHANGE_LOWER_HALVES = 8,   /* and each lower half, of those with the upper half of the smallest that is kept [65536] */
  USAE_EXCHANGE_TIES = 9            /* and how many equal the smallest, in each process [n_processes] */
};

/* Fill `size`; the rest is output. */
typedef struct usae_exchange {
  uint32_t size;
  int32_t kind;    /* USAE_EXCHANGE_* */
  int32_t model;   /* -1: not of one model, or BatchTopK's of the only encoded model */
  int32_t tensor;  /* of a gradient: USAE_ENCODER_WEIGHT or USAE_DICTIONARY; else -1 */
  int32_t awaited; /* 1: usae_shared_take must follow usae_shared_fill */
  int32_t reserved;
  int64_t count;   /* float32 numbers, as many in all processes */
} usae_exchange;

/* What exchange `number` is, from 0 to n_exchanges - 1. */
usae_status usae_shared_exchange(const usae_sae *sae, int64_t number, usae_exchange *exchange, usae_error *error);

/* Writes this process's part to `data` [count], which is the exchange's count. After an interrupt it is partly written. */
usae_status usae_shared_fill(usae_sae *sae, int64_t number, float *data, int64_t count, const usae_interrupt *interrupt,
                             usae_error *error);

/* Gives the sum of all parts, `sum` [count], of an awaited exchange. */
usae_status usae_shared_take(usae_sae *sae, int64_t number, const float *sum, int64_t count, usae_error *error);

/* Updates the parameters. `sums` [n_exchanges] are the sums by number of the exchange, each with its entry of `counts`; a sum
 * that usae_shared_take was given may be NULL. `report` and `losses`, as of usae_step, are of the whole batch; what the report
 * says of screening is of this process. It cannot be interrupted. */
usae_status usae_shared_finish(usae_sae *sae, int64_t n_exchanges, const float *const *sums, const int64_t *counts,
                               usae_step_report *report, double *losses, usae_error *error);

/* Ends a step that was begun. Where there is none it does nothing. */
usae_status usae_shared_abandon(usae_sae *sae, usae_error *error);

/* --- Use ----------------------------------------------------------------------------------------------------------- */

/* Encodes every row of `x`, activations of model `model`. `values` and `indices` [n, usae_slots] hold the most active concept
 * first, of equal ones the lower index first; unused slots hold 0 and -1. A token's code does not depend on the other rows.
 * After an interrupt, or a row that is not finite or whose code is not, the outputs are partly written. */
usae_status usae_encode(const usae_sae *sae, int32_t model, const usae_matrix *x, float *values, int32_t *indices,
                        const usae_interrupt *interrupt, usae_error *error);

/* Decodes codes, `values` and `indices` [n, slots], to activations of model `model` in its own units, `out` [n, width]. `width`
 * says how wide the caller's array is, and must be the model's. Slots with index -1 are skipped. A row that float32 cannot hold
 * is USAE_NOT_FINITE. After that and after an interrupt, `out` is partly written. */
usae_status usae_decode(const usae_sae *sae, int32_t model, int64_t n, int64_t slots, const float *values,
                        const int32_t *indices, int64_t width, float *out, const usae_interrupt *interrupt,
                        usae_error *error);

/* Writes pre-activations, which ReLU and the selection would be given: `out` [n, n_concepts]. After an interrupt, or a row that
 * is not finite, it is partly written. */
usae_status usae_preactivations(const usae_sae *sae, int32_t model, const usae_matrix *x, float *out,
                                const usae_interrupt *interrupt, usae_error *error);

/* The caller's arrays for the outputs of usae_evaluate; the struct is input. M = n_models, m = n_concepts; [i, j] is encoded
 * from model i and decoded to model j. NULL, which is the default of each, skips that output. */
typedef struct usae_evaluation {
  uint32_t size;
  uint32_t reserved;
  double *r2;                /* [M, M] in the models' units, against each dimension's mean over these rows; NaN where nothing
                                varies, as with the two below */
  double *r2_standardized;   /* [M, M] in standardised units, against each dimension's mean */
  double *r2_scalar_mean;    /* [M, M] in standardised units, against one mean over everything, as the published code does */
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

/* Encodes and decodes every row of `activations` [n_models] through every pair of models. It is one pass, whose memory does not
 * grow with the number of rows. */
usae_status usae_evaluate(const usae_sae *sae, int32_t n_models, const usae_matrix *activations, double threshold,
                          const usae_evaluation *out, const usae_interrupt *interrupt, usae_error *error);

/* Finds the `n` rows of `x`, activations of model `model`, that fire each concept most. `values` and `tokens` [n_concepts, n]
 * hold the largest code first, of equal ones the earlier row first; 0 and -1 where fewer rows fire the concept. Rows come in
 * images of `tokens_per_image` rows, and a concept takes at most one row of an image; with 1 it takes any rows. It is one pass,
 * whose memory does not grow with the number of rows. */
usae_status usae_top_examples(const usae_sae *sae, int32_t model, const usae_matrix *x, int64_t n,
                              int64_t tokens_per_image, float *values, int64_t *tokens, const usae_interrupt *interrupt,
                              usae_error *error);

/* --- Parameters and training state --------------------------------------------------------------------------------- */

/* Tensors of one model. Weight and dictionary are [n_concepts, width], mean, its rest and scale [width], the others
 * [n_concepts] if they do not say otherwise. All are float32 but the two that say int64. BN tensors exist only with
 * USAE_ENCODER_BATCHNORM, gradients only from a usae_step with USAE_STEP_GRADIENTS to the next change. */
enum {
  USAE_MEAN = 0,
  USAE_SCALE = 1,
  USAE_ENCODER_WEIGHT = 2,
  USAE_ENCODER_BIAS = 3,
  USAE_BN_WEIGHT = 4,
  USAE_BN_BIAS = 5,
  USAE_BN_RUNNING_MEAN = 6,
  USAE_BN_RUNNING_VAR = 7,
  USAE_DICTIONARY = 8, /* as trained: recipe.dictionary_norm says how rows are used */
  USAE_MEAN_REST = 10, /* what float32 cannot hold of the mean, where a mean is more than 2^14 times the scale; else 0. Writing
                          USAE_MEAN sets it to 0. */
  USAE_THRESHOLD = 9,  /* [1], only with BATCHTOPK: a code's values are above it outside training; a moving average of the
                          smallest entry that a batch kept, 0 before the first step */
  USAE_THRESHOLD_REST = 11, /* only with BATCHTOPK: what a concept's own threshold has above USAE_THRESHOLD, once that is above
                               0; 0 but where it was written */
  /* Plus the number of a parameter: its first and second moment of AdamW, and its gradient. */
  USAE_FIRST_MOMENT = 100,
  USAE_SECOND_MOMENT = 200,
  USAE_GRADIENT = 300,
  USAE_SILENT_TOKENS = 400, /* int64: tokens encoded since the concept last fired */
  USAE_COUNTERS = 401,      /* int64 [3]: steps of the encoder, steps of the dictionary, tokens encoded */
  USAE_EFFECTIVE_DIMENSIONS = 402 /* [1]: in how many directions the standardised tokens vary, 1 to the width (the participation
                                     ratio of their principal components); the width where it was not computed from
                                     activations */
};

/* Writes the shape of a tensor; a vector has *columns = 0. A tensor that does not exist is USAE_INVALID_ARGUMENT. */
usae_status usae_tensor_shape(const usae_sae *sae, int32_t model, int32_t tensor, int64_t *rows, int64_t *columns,
                              usae_error *error);

/* Copy a tensor out, or in. `count` is the number of elements at `data` and must be the tensor's. Writing refuses values that
 * are not finite (a second moment may be infinite, as a gradient of some 1e19 leaves it), a scale that is not positive, and
 * negative counters or variances. */
usae_status usae_tensor_read(const usae_sae *sae, int32_t model, int32_t tensor, void *data, int64_t count,
                             usae_error *error);
usae_status usae_tensor_write(usae_sae *sae, int32_t model, int32_t tensor, const void *data, int64_t count,
                              usae_error *error);

/* A tensor in the caller's memory, `data` [count]. */
typedef struct usae_tensor {
  int32_t model;
  int32_t tensor; /* USAE_MEAN, ... */
  void *data;
  int64_t count;
} usae_tensor;

/* As usae_tensor_read and usae_tensor_write, for `n` tensors at once, 0 to 2^20: no step of another thread comes in between.
 * `step`, which may be NULL, becomes the number of steps done when they were read. */
usae_status usae_tensors_read(const usae_sae *sae, int64_t n, const usae_tensor *tensors, int64_t *step, usae_error *error);
usae_status usae_tensors_write(usae_sae *sae, int64_t n, const usae_tensor *tensors, usae_error *error);

/* usae_step with USAE_STEP_GRADIENTS, and a copy of `n` tensors, gradients above all, before another call can change them. */
usae_status usae_gradients(usae_sae *sae, int32_t n_models, const usae_matrix *inputs, const int64_t *rows, int64_t n_rows,
                           int32_t encoder, int64_t n, const usae_tensor *tensors, const usae_interrupt *interrupt,
                           usae_step_report *report, double *losses, usae_error *error);

/* Sets the number of training steps done. With the tensors above it is the whole training state, because random draws depend on
 * the seed and the step alone. */
usae_status usae_set_step_count(usae_sae *sae, int64_t step, usae_error *error);

/* --- Images that are optimised --------------------------------------------------------------------------------------- */

enum { USAE_IMAGE_PHASE = 0, USAE_IMAGE_SPECTRUM = 1, USAE_IMAGE_PIXELS = 2 };
enum { USAE_ASCENT_NADAM = 0, USAE_ASCENT_ADAM = 1 };

/* What an image is optimised through, and how. Fill `size`, let usae_image_defaults fill the rest, and change what should
 * differ. */
typedef struct usae_image_options {
  uint32_t size;
  int32_t n_threads;       /* as of usae_create; results do not depend on it. Default: 0. */

  /* The image */
  int32_t parametrization; /* USAE_IMAGE_PHASE: the phases of its spectrum, whose magnitudes are fixed. SPECTRUM: real and
                              imaginary parts, divided by the magnitudes. PIXELS: pixels. Default: PHASE. */
  int32_t decorrelate;     /* 1: optimise in a space where natural colours are not correlated. Default: 1. */
  int64_t height, width;   /* of the canvas, in pixels, 1 to 8192. Default: 512. */
  double contrast;         /* without `magnitude`: standard deviation of the colours' logits. Default: 1. */
  uint64_t seed;           /* of start, crops and noise. Default: 0. */

  /* What models are shown in a step */
  int64_t views;           /* 1 to 1024 crops. Default: 16. */
  double first_crop;       /* side of a crop as a share of the canvas's shorter side, in the first step. Default: 1. */
  double last_crop;        /* and in the last. Default: 0.5. */
  double noise;            /* standard deviation of the noise on colours from 0 to 1. Default: 0.05. */

  /* Ascent */
  int32_t optimizer;       /* USAE_ASCENT_*, with PyTorch's betas. Default: NADAM. */
  int32_t reserved;
  int64_t steps;           /* planned; the learning rate falls to 0 in them as a cosine. Default: 256. */
  double learning_rate;    /* Default: 0.3. */
  double total_variation;  /* weight of |neighbours' difference|, where the objective's gradient has length 1. Default: 0. */
  double l2;               /* and of (pixel - 0.5)^2. Default: 0. */
} usae_image_options;

/* Fills the options, of which only `size` is read, with their defaults. */
usae_status usae_image_defaults(usae_image_options *options, usae_error *error);

typedef struct usae_maximizer usae_maximizer;

/* Makes an image to optimise. `magnitude` [3, height, width / 2 + 1] is that of the spectrum (numpy.fft.rfft2) for PHASE and
 * SPECTRUM; NULL takes a closed form for natural images. `start` [3, height, width] holds colours from 0 to 1; NULL starts from
 * noise. On success *out is a handle that the caller frees with usae_maximizer_destroy; on failure *out is unchanged. */
usae_status usae_maximizer_create(const usae_image_options *options, const float *magnitude, const float *start,
                                  usae_maximizer **out, usae_error *error);

/* Frees the handle. NULL does nothing. No call may be running on it. */
void usae_maximizer_destroy(usae_maximizer *maximizer);

/* The input of a model: images of height x width pixels, whose colours c from 0 to 1 have become (c - mean) / std. No field has
 * a default, so `size` is at least 72. */
typedef struct usae_view {
  uint32_t size;
  uint32_t reserved;
  int64_t height, width; /* 1 to 8192 */
  double mean[3];        /* -1e6 to 1e6 */
  double std[3];         /* 1e-6 to 1e6 */
} usae_view;

/* Writes views of the present image for a model, `out` [views, 3, height, width]: random crops, resized without aliasing, with
 * noise. They depend on the image, the seed and the number of steps done. After an interrupt `out` is partly written. */
usae_status usae_maximizer_views(usae_maximizer *maximizer, const usae_view *view, float *out, const usae_interrupt *interrupt,
                                 usae_error *error);

/* Takes the gradient of the objective with respect to these views, `gradient` [views, 3, height, width], in any scale that
 * float32 holds. The gradient of the image that follows from it is scaled to length `weight`, -1e6 to 1e6, and added to those
 * of other models; its length before that goes to *norm, which may be NULL. On failure nothing is added. */
usae_status usae_maximizer_add_gradient(usae_maximizer *maximizer, const usae_view *view, double weight, const float *gradient,
                                        double *norm, const usae_interrupt *interrupt, usae_error *error);

/* Takes one step uphill along what was added, which is used up. After a failure or an interrupt the step has not begun. */
usae_status usae_maximizer_advance(usae_maximizer *maximizer, const usae_interrupt *interrupt, usae_error *error);

int64_t usae_maximizer_step_count(const usae_maximizer *maximizer); /* steps done; -1 for NULL */

/* Write the image, `out` [3, height, width], and how much each pixel has contributed to the objective so far, `out` [height,
 * width]. */
usae_status usae_maximizer_image(usae_maximizer *maximizer, float *out, usae_error *error);
usae_status usae_maximizer_attribution(const usae_maximizer *maximizer, float *out, usae_error *error);

/* Writes where this step's views are, `out` [views, 4]: top, left, height, width. */
usae_status usae_maximizer_boxes(const usae_maximizer *maximizer, int64_t *out, usae_error *error);

/* Cuts `boxes` [n_boxes, 4] out of `image` [3, height, width], and resizes and scales them as views are, without noise: `out`
 * [n_boxes, 3, view's height, view's width]. All boxes have the same size. `n_threads` as of usae_create. */
usae_status usae_crop_resize(int64_t height, int64_t width, const float *image, int64_t n_boxes, const int64_t *boxes,
                             const usae_view *view, float *out, int32_t n_threads, usae_error *error);

enum {
  USAE_OBJECTIVE_ALIGNMENT = 0,     /* (a . w) max(0.1, cos(a, w))^power for standardised token a and row w of the encoder */
  USAE_OBJECTIVE_PREACTIVATION = 1, /* the pre-activation, before ReLU and the selection */
  USAE_OBJECTIVE_CODE = 2,          /* the code, after them */
  USAE_OBJECTIVE_LOG_SUM_EXP = 3    /* soft maximum of pre-activations: log of the mean over tokens of their exponentials */
};

/* Measures how much `x` [n_views * n_tokens, width], activations of a model, shows a concept. `values` [n_views] are those of
 * token `token` of each view; -1 takes the mean over a view's tokens. `gradient` [n_views * n_tokens, width] is that of the
 * mean of `values`. `power`, 0 to 100, matters for ALIGNMENT alone. After an interrupt the outputs are partly written. */
usae_status usae_objective(const usae_sae *sae, int32_t model, int64_t concept_index, int32_t objective, double power,
                           int64_t token, int64_t n_views, const usae_matrix *x, double *values, float *gradient,
                           const usae_interrupt *interrupt, usae_error *error);

/* --- The process --------------------------------------------------------------------------------------------------- */

/* Set, and tell, how many threads a call uses whose n_threads is 0. 0 goes back to the number of cores that this process may
 * use. Results do not depend on it. */
usae_status usae_set_threads(int32_t n_threads, usae_error *error);
int32_t usae_threads(void);

/* Text that is never freed. The kernels in use are "amx", "avx512vnni", "avxvnni", "avx512", "avx2", "dotprod" or "portable";
 * the environment variable USAE_KERNELS chooses others. If it names some that this library or processor lacks, no object can
 * be made. */
const char *usae_kernels(void);
const char *usae_blas(void); /* OpenBLAS's description of itself */
const char *usae_version(void);

#ifdef __cplusplus
}
#endif
#endif
