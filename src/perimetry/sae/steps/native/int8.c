/* Nomination by an int8 product: which latents may fire is read off the tiles of the product while they are in registers,
   so that no score is ever written to memory.

   Rows and encoder rows are rounded to 8 bits with a step of their own each, after a factor on every coordinate that
   balances both. What is kept of a row is refined at once to exact fp32 values, and its certificate is checked. Needs the
   VNNI instructions of AVX-512. */

#include "common.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#define ROWS 12     /* rows of a tile, two vectors of latents each: 24 sums, which with their operands fill the registers */
#define PANEL 32    /* latents of a tile */
#define TEAM 48     /* rows that share a panel while it is in the nearest cache */
#define TRUSTED 0.67f /* share of the slack beyond which an error casts doubt on what was expected */
#define SPARE 32    /* room beyond a row's list, for a whole tile and for stores of whole vectors */

typedef struct {
    const float *x, *factors;            /* rows (rows, d) and what each coordinate is multiplied by */
    const float *bias;                   /* padded to whole panels with minus infinity */
    uint8_t *weights;                    /* (panels, quads, PANEL, 4), 128 more than the value */
    float *steps, *sizes;                /* of the encoder rows: their step, and norm after the factors; padded with 0 */
    int8_t *acts;                        /* (tiles of ROWS, quads, ROWS, 4) */
    float *row_steps, *row_norms;        /* likewise of the rows; padded */
    int32_t *start;                      /* minus 128 times the sum of a row: what the offset of the weights adds */
    i64 rows, width, d;
} Product;

/* 2 where this processor has the instructions, 0 where not. */
EXPORT int pm_int8(void) { return 2; }

static inline i64 quads_of(const Product *p) { return (p->d + 3) / 4; }
static inline i64 panels_of(const Product *p) { return (p->width + PANEL - 1) / PANEL; }

/* A row after the factors as integers of at most 127; gives their step. */
static float round_row(const float *row, const float *factors, i64 d, int divide, int8_t *out, float *norm) {
    float most = 0, squares = 0;
#pragma omp simd reduction(max : most) reduction(+ : squares)
    for (i64 i = 0; i < d; i++) {
        float value = divide ? row[i] / factors[i] : row[i] * factors[i];
        float size = fabsf(value);
        most = size > most ? size : most;
        squares += value * value;
    }
    float step = most / 127, inverse = step > 1e-37f ? 1 / step : 0;
#pragma omp simd
    for (i64 i = 0; i < d; i++) {
        float value = divide ? row[i] / factors[i] : row[i] * factors[i];
        out[i] = (int8_t)(int32_t)nearbyintf(value * inverse);
    }
    *norm = sqrtf(squares);
    return step > 1e-37f ? step : 0;
}

EXPORT int pm_round_weights(const Product *p, const float *W) {
    const i64 quads = quads_of(p), panels = panels_of(p);
    int failed = 0;
#pragma omp parallel
    {
        int8_t *row = calloc(quads * 4, 1);
        if (!row) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (i64 panel = 0; panel < panels; panel++) {
            uint8_t *out = p->weights + panel * quads * PANEL * 4;
            for (i64 l = 0; l < PANEL && row; l++) {
                i64 latent = panel * PANEL + l;
                p->steps[latent] = p->sizes[latent] = 0;
                if (latent < p->width)
                    p->steps[latent] = round_row(W + latent * p->d, p->factors, p->d, 1, row, p->sizes + latent);
                else
                    memset(row, 0, quads * 4);
                for (i64 q = 0; q < quads; q++) {
                    uint32_t four;
                    memcpy(&four, row + 4 * q, 4);
                    four ^= 0x80808080u; /* adds 128 to each byte */
                    memcpy(out + (q * PANEL + l) * 4, &four, 4);
                }
            }
        }
        free(row);
    }
    return failed;
}

EXPORT int pm_round_rows(const Product *p) {
    const i64 quads = quads_of(p), tiles = (p->rows + ROWS - 1) / ROWS;
    int failed = 0;
#pragma omp parallel
    {
        int8_t *row = calloc(quads * 4, 1);
        if (!row) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (i64 tile = 0; tile < tiles; tile++)
            for (i64 l = 0; l < ROWS && row; l++) {
                i64 r = tile * ROWS + l;
                p->row_steps[r] = p->row_norms[r] = 0;
                if (r < p->rows)
                    p->row_steps[r] = round_row(p->x + r * p->d, p->factors, p->d, 0, row, p->row_norms + r);
                else
                    memset(row, 0, quads * 4);
                int32_t sum = 0;
                for (i64 i = 0; i < quads * 4; i++) sum += row[i];
                p->start[r] = -128 * sum;
                for (i64 q = 0; q < quads; q++) memcpy(p->acts + ((tile * quads + q) * ROWS + l) * 4, row + 4 * q, 4);
            }
        free(row);
    }
    return failed;
}

#define FOR_ROWS(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
/* Written out, because compilers spill these sums otherwise. */
#define ADD(sum, weights, row) __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(row));
#define BEGIN(r) __m512i a##r = _mm512_set1_epi32(start[r]), b##r = a##r;
#define TAKE(r) ADD(a##r, low, acts[r]) ADD(b##r, high, acts[r])
#define GIVE(r) out[r][0] = a##r, out[r][1] = b##r;

static inline void multiply(const int8_t *rows, const uint8_t *weights, const int32_t *start, i64 quads, __m512i out[ROWS][2]) {
    FOR_ROWS(BEGIN)
    for (i64 q = 0; q < quads; q++) {
        const int32_t *acts = (const int32_t *)rows + q * ROWS;
        __m512i low = _mm512_loadu_si512(weights + q * PANEL * 4), high = _mm512_loadu_si512(weights + q * PANEL * 4 + 64);
        FOR_ROWS(TAKE)
    }
    FOR_ROWS(GIVE)
}

/* Scores of 16 latents for one row. */
static inline __m512 scores_of(const Product *p, __m512i sums, i64 row, i64 latent) {
    __m512 step = _mm512_mul_ps(_mm512_loadu_ps(p->steps + latent), _mm512_set1_ps(p->row_steps[row]));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), step, _mm512_loadu_ps(p->bias + latent));
}

/* The error of rounding to a step is that of a uniform draw within it, so that a score errs by the root of a twelfth of the squared
   step of the row times the squared norm of the encoder row, plus the like the other way round; at most the sum of the roots. */
static inline float slack_of(const Product *p, i64 row, i64 latent, float noise) {
    return noise * (p->row_steps[row] * p->sizes[latent] + p->row_norms[row] * p->steps[latent]);
}

/* The scores and how far their exact values may lie above them. */
static inline __m512 reach_of(const Product *p, __m512 scores, i64 row, i64 latent, float noise) {
    __m512 by_size = _mm512_set1_ps(noise * p->row_steps[row]), by_step = _mm512_set1_ps(noise * p->row_norms[row]);
    scores = _mm512_fmadd_ps(by_size, _mm512_loadu_ps(p->sizes + latent), scores);
    return _mm512_fmadd_ps(by_step, _mm512_loadu_ps(p->steps + latent), scores);
}

static inline float noise_of(double sigmas) { return (float)(sigmas / sqrt(12.0)); }

typedef struct {
    float *scores;
    int32_t *columns;
    i64 count, room;
    float cut; /* every score (or reach) that is not in the list is at most this */
} List;

static inline void push(List *list, __m512 scores, __mmask16 which, i64 first) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i columns = _mm512_add_epi32(lanes, _mm512_set1_epi32((int32_t)first));
    _mm512_storeu_ps(list->scores + list->count, _mm512_maskz_compress_ps(which, scores));
    _mm512_storeu_si512(list->columns + list->count, _mm512_maskz_compress_epi32(which, columns));
    list->count += __builtin_popcount(which);
}

static inline __mmask16 lanes_left(i64 left) { return left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1); }

static i64 count_above(const List *list, float cut) {
    i64 found = 0;
    for (i64 i = 0; i < list->count; i += 16)
        found += __builtin_popcount(_mm512_mask_cmp_ps_mask(lanes_left(list->count - i), _mm512_loadu_ps(list->scores + i),
                                                            _mm512_set1_ps(cut), _CMP_GT_OQ));
    return found;
}

/* A cut that between `least` and `most` scores of the list exceed, if bisection finds one; else one that too many do. */
static float cut_for(const List *list, i64 least, i64 most) {
    float low = list->cut, high = low;
    for (i64 i = 0; i < list->count; i++) high = list->scores[i] > high ? list->scores[i] : high;
    for (int turn = 0; turn < 40; turn++) {
        float middle = 0.5f * (low + high);
        if (!(middle > low && middle < high)) break;
        i64 found = count_above(list, middle);
        if (found < least) {
            high = middle;
        } else {
            low = middle;
            if (found <= most) break;
        }
    }
    return low;
}

/* Drops scores until about `m` are left, at least that many. */
static void shrink(List *list, i64 m) {
    float cut = cut_for(list, m, m + m / 2);
    i64 kept = 0;
    for (i64 i = 0; i < list->count; i += 16) {
        __m512 scores = _mm512_loadu_ps(list->scores + i);
        __m512i columns = _mm512_loadu_si512(list->columns + i);
        __mmask16 stays = _mm512_mask_cmp_ps_mask(lanes_left(list->count - i), scores, _mm512_set1_ps(cut), _CMP_GT_OQ);
        _mm512_storeu_ps(list->scores + kept, _mm512_maskz_compress_ps(stays, scores));
        _mm512_storeu_si512(list->columns + kept, _mm512_maskz_compress_epi32(stays, columns));
        kept += __builtin_popcount(stays);
    }
    list->count = kept, list->cut = cut;
    if (kept > 2 * m) {
        /* Equal scores in plenty: some are dropped, and the row will fail its certificate. */
        for (i64 i = m; i < kept; i++) list->cut = list->scores[i] > list->cut ? list->scores[i] : list->cut;
        list->count = m;
    }
}

/* ---- the k largest of each row --------------------------------------------------------------------------------------- */

typedef struct {
    float *reach, *exact; /* of what was taken from the list */
    int32_t *ids, *order;
} Taken;

/* Exact values of the listed latents, farthest reach first, until no other one reaches the k-th of them. Whether that was so
   before the list ended, and every error was as small as expected. */
static int refine_row(const Product *p, i64 r, const float *W, const List *list, i64 k, float noise, Taken *t, i64 *out_columns,
                      float *out_values) {
    i64 taken = 0, kept = 0;
    int expected = 1;
    float above = INFINITY, cut = list->count > k + 12 ? cut_for(list, k + 4, k + 12) : list->cut, last;
    for (;;) {
        i64 before = taken;
        for (i64 j = 0; j < list->count; j++)
            if (list->scores[j] > cut && list->scores[j] <= above) {
                t->reach[taken] = list->scores[j];
                t->ids[taken++] = list->columns[j];
            }
        dots32(p->x + r * p->d, W, t->ids + before, taken - before, p->d, t->exact + before);
        for (i64 j = before; j < taken; j++) {
            i64 c = t->ids[j];
            t->exact[j] += p->bias[c];
            float slack = slack_of(p, r, c, noise), rounding = 1e-5f * (fabsf(t->exact[j]) + fabsf(p->bias[c]));
            expected &= fabsf(t->exact[j] - (t->reach[j] - slack)) <= TRUSTED * slack + rounding;
            kept = keep_best(t->exact, t->ids, t->order, kept, k, (int32_t)j);
        }
        last = kept == k ? t->exact[t->order[k - 1]] : 0;
        if (last > cut || cut <= list->cut) break;
        above = cut;
        float next = nextafterf(last, -INFINITY);
        cut = next > list->cut ? next : list->cut;
    }
    for (i64 j = 0; j < k; j++) {
        out_columns[j] = j < kept ? t->ids[t->order[j]] : 0;
        out_values[j] = j < kept ? t->exact[t->order[j]] : 0;
    }
    return last > cut && expected;
}

EXPORT int pm_top_int8(const Product *p, const float *W, i64 m, i64 k, double sigmas, i64 *out_columns, float *out_values,
                       uint8_t *doubt) {
    const i64 quads = quads_of(p), panels = panels_of(p), teams = (p->rows + TEAM - 1) / TEAM;
    const i64 room = (4 * m > 256 ? 4 * m : 256) + SPARE;
    const float noise = noise_of(sigmas);
    int failed = 0;
#pragma omp parallel
    {
        float *scores = malloc(TEAM * room * sizeof(float));
        int32_t *columns = malloc(TEAM * room * sizeof(int32_t));
        Taken t = {malloc(room * sizeof(float)), malloc(room * sizeof(float)), malloc(room * sizeof(int32_t)),
                   malloc((k + 1) * sizeof(int32_t))};
        int ready = scores && columns && t.reach && t.exact && t.ids && t.order;
        if (!ready) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (i64 team = 0; team < teams; team++) {
            if (!ready) continue;
            i64 first = team * TEAM, stop = first + TEAM < p->rows ? first + TEAM : p->rows;
            List lists[TEAM];
            for (i64 l = 0; l < TEAM; l++) lists[l] = (List){scores + l * room, columns + l * room, 0, room, 0};
            for (i64 panel = 0; panel < panels; panel++)
                for (i64 r = first; r < stop; r += ROWS) {
                    __m512i sums[ROWS][2];
                    multiply(p->acts + r * quads * 4, p->weights + panel * quads * PANEL * 4, p->start + r, quads, sums);
                    for (i64 l = 0; l < ROWS && r + l < stop; l++) {
                        List *list = lists + (r - first + l);
                        for (int half = 0; half < 2; half++) {
                            i64 latent = panel * PANEL + 16 * half;
                            __m512 found = reach_of(p, scores_of(p, sums[l][half], r + l, latent), r + l, latent, noise);
                            __mmask16 which = _mm512_cmp_ps_mask(found, _mm512_set1_ps(list->cut), _CMP_GT_OQ);
                            if (which) push(list, found, which, latent);
                        }
                        if (list->count + 2 * SPARE > room) shrink(list, m);
                    }
                }
            for (i64 r = first; r < stop; r++)
                doubt[r] = !refine_row(p, r, W, lists + (r - first), k, noise, &t, out_columns + r * k, out_values + r * k);
        }
        free(scores), free(columns), free(t.reach), free(t.exact), free(t.ids), free(t.order);
    }
    return failed;
}

/* ---- all that may reach a cut ------------------------------------------------------------------------------------------ */

typedef struct {
    i64 rows;
    List *lists;
} Found;

static int widen(List *list) {
    if (list->count + 2 * SPARE <= list->room) return 1;
    i64 room = 2 * list->room + 8 * SPARE;
    float *scores = realloc(list->scores, room * sizeof(float));
    if (scores) list->scores = scores;
    int32_t *columns = realloc(list->columns, room * sizeof(int32_t));
    if (columns) list->columns = columns;
    if (!scores || !columns) return 0;
    list->room = room;
    return 1;
}

static void forget(Found *found) {
    for (i64 r = 0; r < found->rows; r++) free(found->lists[r].scores), free(found->lists[r].columns);
    free(found->lists), free(found);
}

/* Every score that comes within `sigmas` times its expected error of its latent's cut, by row and latent. Gives 0 and a handle
   for `pm_above_int8_take`; 1 without memory; 2 where there are more than `limit`, which no list is worth. */
EXPORT int pm_above_int8(const Product *p, const float *cuts, double sigmas, i64 limit, i64 *counts, void **handle) {
    const i64 quads = quads_of(p), panels = panels_of(p), teams = (p->rows + TEAM - 1) / TEAM;
    const float noise = noise_of(sigmas);
    int failed = 0;
    i64 total = 0;
    Found *found = calloc(1, sizeof *found);
    if (!found || !(found->lists = calloc(p->rows, sizeof(List)))) {
        free(found);
        return 1;
    }
    found->rows = p->rows;
#pragma omp parallel for schedule(dynamic, 1)
    for (i64 team = 0; team < teams; team++) {
        int stopped;
#pragma omp atomic read
        stopped = failed;
        i64 first = team * TEAM, stop = first + TEAM < p->rows ? first + TEAM : p->rows, mine = 0;
        for (i64 panel = 0; panel < panels && !stopped; panel++)
            for (i64 r = first; r < stop && !stopped; r += ROWS) {
                __m512i sums[ROWS][2];
                multiply(p->acts + r * quads * 4, p->weights + panel * quads * PANEL * 4, p->start + r, quads, sums);
                for (i64 l = 0; l < ROWS && r + l < stop; l++) {
                    List *list = found->lists + r + l;
                    if (!widen(list)) {
                        stopped = 1;
                        break;
                    }
                    for (int half = 0; half < 2; half++) {
                        i64 latent = panel * PANEL + 16 * half;
                        __m512 score = scores_of(p, sums[l][half], r + l, latent);
                        __m512 reach = reach_of(p, score, r + l, latent, noise);
                        __mmask16 which = _mm512_cmp_ps_mask(reach, _mm512_loadu_ps(cuts + latent), _CMP_GE_OQ);
                        if (which) push(list, score, which, latent);
                    }
                }
            }
        for (i64 r = first; r < stop; r++) counts[r] = found->lists[r].count, mine += counts[r];
        i64 sum;
#pragma omp atomic capture
        sum = total += mine;
        int verdict = stopped ? 1 : sum > limit ? 2 : 0;
        if (verdict) {
#pragma omp atomic write
            failed = verdict;
        }
    }
    if (failed) {
        forget(found);
        return total > limit ? 2 : 1;
    }
    *handle = found;
    return 0;
}

/* The entries found, and for each the slack that it was given. Frees the handle. */
EXPORT int pm_above_int8_take(const Product *p, double sigmas, void *handle, const i64 *offsets, i64 *columns, float *scores,
                              float *slack) {
    Found *found = handle;
    const float noise = noise_of(sigmas);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < found->rows; r++) {
        const List *list = found->lists + r;
        memcpy(scores + offsets[r], list->scores, list->count * sizeof(float));
        for (i64 j = 0; j < list->count; j++) {
            i64 c = list->columns[j];
            columns[offsets[r] + j] = c;
            slack[offsets[r] + j] = slack_of(p, r, c, noise);
        }
    }
    forget(found);
    return 0;
}

#else

EXPORT int pm_int8(void) { return 0; }

#endif
