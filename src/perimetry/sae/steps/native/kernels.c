/* The sparse training step on the CPU: selection among bf16 products, exact fp32 values, products of the active entries,
   gradients by latent, and Adam fused with them.

   Every sum has a fixed order: rows and latents are summed by one thread each, totals over fixed blocks of latents, so
   that no result depends on the number of threads. Compiled on first use for the processor at hand; the torch operations
   beside it give the same results and take its place where no compiler is found. */

#include "common.h"

/* ---- selection ---------------------------------------------------------------------------------------------------- */

static inline uint64_t rank_key(int16_t score, i64 column) {
    return ((uint64_t)(uint16_t)score << 32) | (uint32_t)(0xffffffffu - (uint32_t)column);
}

/* Moves the `keep` largest keys to the front, in no order. */
static void partition_keys(uint64_t *keys, i64 count, i64 keep) {
    i64 low = 0, high = count - 1;
    while (low < high) {
        uint64_t pivot = keys[low + (high - low) / 2];
        i64 i = low, j = high;
        while (i <= j) {
            while (keys[i] > pivot) i++;
            while (keys[j] < pivot) j--;
            if (i <= j) {
                uint64_t swap = keys[i];
                keys[i] = keys[j], keys[j] = swap;
                i++, j--;
            }
        }
        if (keep - 1 <= j)
            high = j;
        else if (keep - 1 >= i)
            low = i;
        else
            return;
    }
}

static int16_t largest_at(int16_t *values, i64 count, i64 rank) {
    i64 low = 0, high = count - 1;
    while (low < high) {
        int16_t pivot = values[low + (high - low) / 2];
        i64 i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot) i++;
            while (values[j] < pivot) j--;
            if (i <= j) {
                int16_t swap = values[i];
                values[i] = values[j], values[j] = swap;
                i++, j--;
            }
        }
        if (rank <= j)
            high = j;
        else if (rank >= i)
            low = i;
        else
            break;
    }
    return values[rank];
}

/* Positions with score >= cut (as bits; cut > 0, so that bits of positive numbers compare as numbers). */
static i64 positions_above(const int16_t *row, i64 width, int16_t cut, int32_t *out) {
    i64 found = 0, i = 0;
#ifdef __AVX512BW__
    const __m512i bound = _mm512_set1_epi16(cut);
    for (; i + LANES <= width; i += LANES) {
        uint32_t mask = _mm512_cmpge_epi16_mask(_mm512_loadu_si512(row + i), bound);
        while (mask) {
            out[found++] = (int32_t)(i + __builtin_ctz(mask));
            mask &= mask - 1;
        }
    }
#endif
    for (; i < width; i++)
        if (row[i] >= cut) out[found++] = (int32_t)i;
    return found;
}

/* bf16 bits as integers that are ordered like the numbers, negative ones included. */
static inline int16_t ordered(int16_t bits) { return (int16_t)(bits ^ ((bits >> 15) & 0x7fff)); }

/* The same as `positions_above` for a cut of any sign, given as `ordered` bits. */
static i64 positions_above_signed(const int16_t *row, i64 width, int16_t cut, int32_t *out) {
    i64 found = 0, i = 0;
#ifdef __AVX512BW__
    const __m512i bound = _mm512_set1_epi16(cut), low = _mm512_set1_epi16(0x7fff);
    for (; i + LANES <= width; i += LANES) {
        __m512i bits = _mm512_loadu_si512(row + i);
        bits = _mm512_xor_si512(bits, _mm512_and_si512(_mm512_srai_epi16(bits, 15), low));
        uint32_t mask = _mm512_cmpge_epi16_mask(bits, bound);
        while (mask) {
            out[found++] = (int32_t)(i + __builtin_ctz(mask));
            mask &= mask - 1;
        }
    }
#endif
    for (; i < width; i++)
        if (ordered(row[i]) >= cut) out[found++] = (int32_t)i;
    return found;
}

/* A value that at least `m` positions reach, from maxima of disjoint groups; 1 (the least positive) where none is. */
static int16_t lower_bound_of_top(const int16_t *row, i64 width, i64 m, int16_t *maxima) {
    i64 groups = 0, i = 0;
    for (; i + LANES * SPAN <= width; i += LANES * SPAN, groups += LANES) {
        int16_t best[LANES];
        memcpy(best, row + i, sizeof best);
        for (i64 s = 1; s < SPAN; s++) {
            const int16_t *part = row + i + s * LANES;
#pragma omp simd
            for (int l = 0; l < LANES; l++) best[l] = part[l] > best[l] ? part[l] : best[l];
        }
        memcpy(maxima + groups, best, sizeof best);
    }
    for (; i < width; i += 16, groups++) {
        int16_t best = row[i];
        for (i64 s = i + 1; s < width && s < i + 16; s++) best = row[s] > best ? row[s] : best;
        maxima[groups] = best;
    }
    if (m > groups) return 1;
    int16_t cut = largest_at(maxima, groups, m - 1);
    return cut < 1 ? 1 : cut;
}

/* The `m` largest positive scores of each row of bf16 scores: candidates of the top k. */
EXPORT int pm_candidates(const int16_t *scores, i64 rows, i64 width, i64 m, int32_t *columns, int16_t *values, int32_t *counts) {
    int failed = 0;
#pragma omp parallel
    {
        int16_t *maxima = malloc((width / 16 + LANES + 1) * sizeof(int16_t));
        int32_t *places = malloc(width * sizeof(int32_t));
        uint64_t *keys = malloc(width * sizeof(uint64_t));
        int16_t guess = 0; /* a little below the last score kept of the row before: rows of a batch are alike */
        if (!maxima || !places || !keys) {
#pragma omp atomic write
            failed = 1;
        } else {
#pragma omp for schedule(static)
            for (i64 r = 0; r < rows; r++) {
                const int16_t *row = scores + r * width;
                i64 found = guess > 0 ? positions_above(row, width, guess, places) : 0;
                if (found < m || found > 4 * m)
                    found = positions_above(row, width, lower_bound_of_top(row, width, m, maxima), places);
                for (i64 j = 0; j < found; j++) keys[j] = rank_key(row[places[j]], places[j]);
                if (found > m) {
                    partition_keys(keys, found, m);
                    found = m;
                }
                counts[r] = (int32_t)found;
                int16_t least = INT16_MAX;
                for (i64 j = 0; j < found; j++) {
                    columns[r * m + j] = (int32_t)(0xffffffffu - (uint32_t)keys[j]);
                    int16_t value = (int16_t)(keys[j] >> 32);
                    values[r * m + j] = value;
                    least = value < least ? value : least;
                }
                guess = found == m && least > 8 ? least - 8 : 0;
            }
        }
        free(maxima), free(places), free(keys);
    }
    return failed;
}

/* Exact scores of the candidates, the k largest positive ones in order (equal ones by column), and whether the bf16
   scores leave a doubt: the k-th exact score must clear the best score outside the candidates by `sigmas` times the
   root mean square of exact minus bf16. */
EXPORT int pm_refine(const float *x, const float *W, const float *bias, i64 rows, i64 d, i64 m, i64 k, double sigmas,
                     const int32_t *columns, const int16_t *scores, const int32_t *counts, i64 *out_columns, float *out_values,
                     uint8_t *doubt) {
    int failed = 0;
#pragma omp parallel
    {
        float *exact = malloc(m * sizeof(float));
        int32_t *order = malloc(m * sizeof(int32_t));
        if (!exact || !order) {
#pragma omp atomic write
            failed = 1;
        } else {
#pragma omp for schedule(static)
            for (i64 r = 0; r < rows; r++) {
                const int32_t *ids = columns + r * m;
                i64 count = counts[r], kept = 0;
                dots32(x + r * d, W, ids, count, d, exact);
                double squares = 0;
                float outside = 0;
                for (i64 j = 0; j < count; j++) {
                    float score = from_bf16(scores[r * m + j]);
                    exact[j] += bias[ids[j]];
                    double gap = (double)exact[j] - score;
                    squares += gap * gap;
                    if (count == m && (j == 0 || score < outside)) outside = score;
                }
                for (i64 j = 0; j < count; j++) kept = keep_best(exact, ids, order, kept, k, (int32_t)j);
                float last = kept == k ? exact[order[k - 1]] : 0;
                doubt[r] = !(last - outside > sigmas * sqrt(squares / (count ? count : 1)));
                for (i64 j = 0; j < k; j++) {
                    out_columns[r * k + j] = j < kept ? ids[order[j]] : 0;
                    out_values[r * k + j] = j < kept ? exact[order[j]] : 0;
                }
            }
        }
        free(exact), free(order);
    }
    return failed;
}

/* How many scores of each row lie above its own cut plus that of the column (cut_columns may be null). */
static inline i64 row_above(const int16_t *row, i64 width, float cut, const float *cuts, int32_t *out) {
    if (!cuts) {
        int16_t bits = (int16_t)to_bf16(cut);
        // A score at or below 0 may belong to a value above it: the slack takes the cut below 0 where that fires.
        if (bits > 0) return positions_above(row, width, bits, out);
        return positions_above_signed(row, width, ordered(bits), out);
    }
    i64 found = 0;
    for (i64 i = 0; i < width; i += SPAN) {
        i64 stop = i + SPAN < width ? i + SPAN : width;
        int any = 0;
#pragma omp simd reduction(| : any)
        for (i64 j = i; j < stop; j++) any |= from_bf16(row[j]) >= cuts[j] + cut;
        if (!any) continue;
        for (i64 j = i; j < stop; j++)
            if (from_bf16(row[j]) >= cuts[j] + cut) out[found++] = (int32_t)j;
    }
    return found;
}

/* Columns whose bf16 score reaches cut[row] (+ cuts[column]); `counts` first, the caller sums them up, then `columns`. */
EXPORT int pm_above(const int16_t *scores, i64 rows, i64 width, const float *cut, const float *cuts, const i64 *offsets,
                    i64 *counts, i64 *columns, float *values) {
    int failed = 0;
#pragma omp parallel
    {
        int32_t *places = malloc(width * sizeof(int32_t));
        if (!places) {
#pragma omp atomic write
            failed = 1;
        } else {
#pragma omp for schedule(static)
            for (i64 r = 0; r < rows; r++) {
                i64 found = row_above(scores + r * width, width, cut[r], cuts, places);
                if (counts) counts[r] = found;
                if (!offsets) continue;
                for (i64 j = 0; j < found; j++) {
                    columns[offsets[r] + j] = places[j];
                    values[offsets[r] + j] = from_bf16(scores[r * width + places[j]]);
                }
            }
        }
        free(places);
    }
    return failed;
}

/* ---- what the neighbours of a row know ---------------------------------------------------------------------------- */

/* A number that at least k of the row reach, or -inf: the k-th largest of the maxima of disjoint spans. */
static float reached_by(const float *row, i64 width, i64 k, float *best) {
    i64 spans = width / SPAN;
    if (spans < k) return -INFINITY;
    for (i64 j = 0; j < k; j++) best[j] = -INFINITY;
    for (i64 g = 0; g < spans; g++) {
        float top = -INFINITY;
        const float *part = row + g * SPAN;
#pragma omp simd reduction(max : top)
        for (i64 j = 0; j < SPAN; j++) top = part[j] > top ? part[j] : top;
        /* Kept in descending order by insertion: few are. */
        if (!(top > best[k - 1])) continue;
        i64 at = k - 1;
        for (; at > 0 && best[at - 1] < top; at--) best[at] = best[at - 1];
        best[at] = top;
    }
    return best[k - 1];
}

/* Columns of the k largest of each row (0 < k <= width), largest first; of equals the first ones. NaN comes last. */
EXPORT int pm_largest(const float *x, i64 rows, i64 width, i64 k, i64 *columns) {
    int failed = 0;
#pragma omp parallel
    {
        float *best = malloc(k * sizeof(float));
        if (!best) {
#pragma omp atomic write
            failed = 1;
        } else {
#pragma omp for schedule(static)
            for (i64 r = 0; r < rows; r++) {
                const float *row = x + r * width;
                const float bar = reached_by(row, width, k, best);
                i64 *mine = columns + r * k, found = 0;
                for (i64 i = 0; i < width; i += SPAN) {
                    i64 stop = i + SPAN < width ? i + SPAN : width;
                    int any = 0;
#pragma omp simd reduction(| : any)
                    for (i64 j = i; j < stop; j++) any |= row[j] >= bar;
                    if (!any) continue;
                    for (i64 j = i; j < stop; j++) {
                        if (!(row[j] >= bar) || (found == k && !(row[j] > best[k - 1]))) continue;
                        i64 at = found < k ? found++ : k - 1;
                        for (; at > 0 && best[at - 1] < row[j]; at--) best[at] = best[at - 1], mine[at] = mine[at - 1];
                        best[at] = row[j], mine[at] = j;
                    }
                }
                /* Only where NaN stands are there fewer: they fill up, in order. */
                for (i64 j = 0; found < k && j < width; j++)
                    if (row[j] != row[j]) mine[found++] = j;
            }
        }
        free(best);
    }
    return failed;
}

/* ---- projection onto the simplex ---------------------------------------------------------------------------------- */

/* Shifts each row to a largest of 0 in place; writes its projection, 1 where that is above 0, and how many those are. Michelot's rule:
   the cut rises, from the least that it can be, until the number above it stays. NaN is handed on. */
EXPORT int pm_project(float *scores, i64 rows, i64 width, float *codes, float *mask, float *counts) {
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++) {
        float *row = scores + r * width, *out = codes + r * width, *is = mask + r * width, top = row[0];
#pragma omp simd reduction(max : top)
        for (i64 j = 0; j < width; j++) top = row[j] > top ? row[j] : top;
#pragma omp simd
        for (i64 j = 0; j < width; j++) row[j] -= top;
        double cut = -1, before = width + 1;
        for (;;) {
            double sum = 0, count = 0;
#pragma omp simd reduction(+ : sum, count)
            for (i64 j = 0; j < width; j++) {
                double value = row[j];
                sum += value > cut ? value : 0, count += value > cut ? 1 : 0;
            }
            if (count >= before || count == 0) break;
            before = count;
            cut = fmax(cut, (sum - 1) / count);
        }
        float kept = 0;
#pragma omp simd reduction(+ : kept)
        for (i64 j = 0; j < width; j++) {
            double gap = row[j] - cut;
            out[j] = gap < 0 ? 0 : (float)gap;
            is[j] = out[j] > 0;
            kept += is[j];
        }
        counts[r] = kept;
    }
    return 0;
}

/* For each row and each of its own columns: whether it is in none of the lists of the row's neighbours (entries in [0, width]). */
EXPORT int pm_absent(const i64 *near, i64 rows, i64 k, const int32_t *lists, i64 length, const i64 *own, i64 slots, i64 width,
                     uint8_t *absent) {
    int failed = 0;
#pragma omp parallel
    {
        uint8_t *seen = malloc(width + 1);
        if (!seen) {
#pragma omp atomic write
            failed = 1;
        } else {
#pragma omp for schedule(static)
            for (i64 r = 0; r < rows; r++) {
                memset(seen, 0, width + 1);
                for (i64 j = 0; j < k; j++) {
                    const int32_t *list = lists + near[r * k + j] * length;
                    for (i64 s = 0; s < length && list[s] < width; s++) seen[list[s]] = 1;
                }
                for (i64 s = 0; s < slots; s++) absent[r * slots + s] = !seen[own[r * slots + s]];
            }
        }
        free(seen);
    }
    return failed;
}

/* Summed squared distance of the rows from their mean, in double precision, over fixed blocks of rows. */
EXPORT int pm_spread(const float *x, i64 rows, i64 d, double *total) {
    const i64 blocks = (rows + BLOCK - 1) / BLOCK;
    double *sums = calloc(blocks * d, sizeof(double)), *squares = calloc(blocks, sizeof(double));
    double *mean = calloc(d, sizeof(double));
    int failed = !sums || !squares || !mean;
    if (!failed) {
#pragma omp parallel for schedule(static)
        for (i64 block = 0; block < blocks; block++) {
            double *mine = sums + block * d;
            i64 stop = (block + 1) * BLOCK < rows ? (block + 1) * BLOCK : rows;
            for (i64 r = block * BLOCK; r < stop; r++)
                for (i64 i = 0; i < d; i++) mine[i] += x[r * d + i];
        }
        for (i64 block = 0; block < blocks; block++)
            for (i64 i = 0; i < d; i++) mean[i] += sums[block * d + i] / rows;
#pragma omp parallel for schedule(static)
        for (i64 block = 0; block < blocks; block++) {
            double s = 0;
            i64 stop = (block + 1) * BLOCK < rows ? (block + 1) * BLOCK : rows;
            for (i64 r = block * BLOCK; r < stop; r++) {
#pragma omp simd reduction(+ : s)
                for (i64 i = 0; i < d; i++) {
                    double gap = x[r * d + i] - mean[i];
                    s += gap * gap;
                }
            }
            squares[block] = s;
        }
        *total = 0;
        for (i64 block = 0; block < blocks; block++) *total += squares[block];
    }
    free(sums), free(squares), free(mean);
    return failed;
}

/* ---- products of the active entries ------------------------------------------------------------------------------- */

EXPORT int pm_decode(const i64 *offsets, const i64 *columns, const float *values, const float *W, i64 rows, i64 d, float *out) {
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++)
        gather(out + r * d, W, columns + offsets[r], values + offsets[r], offsets[r + 1] - offsets[r], d);
    return 0;
}

/* The same of entries (row, slot), of which those after the last that is not 0 are left. */
EXPORT int pm_decode_slots(const i64 *columns, const float *values, i64 slots, const float *W, i64 rows, i64 d, float *out) {
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++) {
        i64 count = slots;
        while (count > 0 && values[r * slots + count - 1] == 0) count--;
        gather(out + r * d, W, columns + r * slots, values + r * slots, count, d);
    }
    return 0;
}

static int by_key(const void *a, const void *b) {
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;
    return (one > other) - (one < other);
}

/* Ascending: by insertion where they are few, which most rows are. */
static void sort_keys(uint64_t *keys, i64 count) {
    if (count > SPAN) {
        qsort(keys, count, sizeof(uint64_t), by_key);
        return;
    }
    for (i64 j = 1; j < count; j++) {
        uint64_t key = keys[j];
        i64 at = j;
        for (; at > 0 && keys[at - 1] > key; at--) keys[at] = keys[at - 1];
        keys[at] = key;
    }
}

/* Entries above 0 as (row, slot): values descending, equal ones by column; the bits of such values are in their order. */
EXPORT int pm_by_slot(const i64 *offsets, const i64 *columns, const float *values, i64 rows, i64 slots, float *out_values,
                      i64 *out_columns) {
    int failed = 0;
#pragma omp parallel
    {
        uint64_t *keys = malloc((slots ? slots : 1) * sizeof(uint64_t));
        if (!keys) {
#pragma omp atomic write
            failed = 1;
        } else {
#pragma omp for schedule(static)
            for (i64 r = 0; r < rows; r++) {
                i64 first = offsets[r], count = offsets[r + 1] - first;
                for (i64 j = 0; j < count; j++) {
                    uint32_t bits;
                    memcpy(&bits, values + first + j, 4);
                    keys[j] = (uint64_t)~bits << 32 | (uint32_t)columns[first + j];
                }
                sort_keys(keys, count);
                for (i64 j = 0; j < count; j++) {
                    uint32_t bits = ~(uint32_t)(keys[j] >> 32);
                    memcpy(out_values + r * slots + j, &bits, 4);
                    out_columns[r * slots + j] = (i64)(uint32_t)keys[j];
                }
                memset(out_values + r * slots + count, 0, (slots - count) * sizeof(float));
                memset(out_columns + r * slots + count, 0, (slots - count) * sizeof(i64));
            }
        }
        free(keys);
    }
    return failed;
}

EXPORT int pm_sampled(const i64 *offsets, const i64 *columns, const float *U, const float *W, i64 rows, i64 d, float *out) {
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++)
        dots64(U + r * d, W, columns + offsets[r], offsets[r + 1] - offsets[r], d, out + offsets[r]);
    return 0;
}

#if defined(__AVX512BW__) && defined(__AVX512VL__)
#define HALVES 1
/* Products of one vector with up to four rows of half precision. */
static inline void half_dots(const float *x, const uint16_t *const *rows, i64 count, i64 d, float *out) {
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (i64 i = 0; i < d; i += 16) {
        __mmask16 there = d - i >= 16 ? 0xffff : (__mmask16)((1u << (d - i)) - 1);
        __m512 part = _mm512_maskz_loadu_ps(there, x + i);
        for (i64 n = 0; n < count; n++)
            sums[n] = _mm512_fmadd_ps(part, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, rows[n] + i)), sums[n]);
    }
    for (i64 n = 0; n < count; n++) out[n] = _mm512_reduce_add_ps(sums[n]);
}
#endif

/* 2 where this processor reads half precision as fast as it comes, 0 where not. */
EXPORT int pm_halves(void) {
#ifdef HALVES
    return 2;
#else
    return 0;
#endif
}

/* As `pm_sampled`, with weights of half precision: half of the memory to read, which is what this costs. */
EXPORT int pm_sampled_half(const i64 *offsets, const i64 *columns, const float *U, const uint16_t *W, i64 rows, i64 d, float *out) {
#ifdef HALVES
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++) {
        const i64 stop = offsets[r + 1];
        const uint16_t *four[4];
        i64 j = offsets[r];
        for (; j + 4 <= stop; j += 4) {
            for (i64 n = j + 4; n < j + 8 && n < stop; n++)
                for (i64 i = 0; i < d; i += 32) __builtin_prefetch(W + columns[n] * d + i, 0, 2);
            for (i64 n = 0; n < 4; n++) four[n] = W + columns[j + n] * d;
            half_dots(U + r * d, four, 4, d, out + j);
        }
        for (i64 n = j; n < stop; n++) four[n - j] = W + columns[n] * d;
        half_dots(U + r * d, four, stop - j, d, out + j);
    }
    return 0;
#else
    return 1;
#endif
}

/* Reconstruction, its error, the upstream gradient `scale` times the residual, and its products with the decoder rows,
   while those rows are still in the cache. */
EXPORT int pm_residual(const i64 *offsets, const i64 *columns, const float *values, const float *W, const float *bias,
                        const float *target, i64 rows, i64 d, float scale, float *upstream, float *delta, double *errors) {
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++) {
        float *out = upstream + r * d;
        const float *y = target + r * d;
        i64 from = offsets[r], count = offsets[r + 1] - offsets[r];
        gather(out, W, columns + from, values + from, count, d);
        double error = 0;
#pragma omp simd reduction(+ : error)
        for (i64 i = 0; i < d; i++) {
            float gap = y[i] - bias[i] - out[i];
            error += (double)gap * gap;
            out[i] = gap * scale;
        }
        errors[r] = error;
        dots64(out, W, columns + from, count, d, delta + from);
    }
    return 0;
}

/* The entries ordered by latent, rows ascending within a latent: a counting sort over blocks of rows. */
EXPORT int pm_by_column(const i64 *offsets, const i64 *columns, i64 rows, i64 width, i64 *order, i64 *row_of, i64 *starts) {
    memset(starts, 0, (width + 1) * sizeof(i64));
    for (i64 e = 0; e < offsets[rows]; e++) starts[columns[e] + 1]++;
    for (i64 c = 0; c < width; c++) starts[c + 1] += starts[c];
    i64 *next = malloc(width * sizeof(i64));
    if (!next) return 1;
    memcpy(next, starts, width * sizeof(i64));
    for (i64 r = 0; r < rows; r++)
        for (i64 e = offsets[r]; e < offsets[r + 1]; e++) {
            i64 at = next[columns[e]]++;
            order[at] = e;
            row_of[at] = r;
        }
    free(next);
    return 0;
}

/* Rows of U added up by the entries of each latent. */
EXPORT int pm_transposed(const i64 *starts, const i64 *order, const i64 *row_of, const float *values, const float *U, i64 width,
                         i64 d, float *out) {
    int failed = 0;
#pragma omp parallel
    {
        i64 room = 0;
        float *mine = NULL;
#pragma omp for schedule(dynamic, BLOCK)
        for (i64 c = 0; c < width; c++) {
            i64 from = starts[c], count = starts[c + 1] - from;
            if (count > room) {
                free(mine);
                room = 2 * count;
                mine = malloc(room * sizeof(float));
            }
            if (count && !mine) {
                room = 0;
#pragma omp atomic write
                failed = 1;
                continue;
            }
            for (i64 j = 0; j < count; j++) mine[j] = values[order[from + j]];
            gather(out + c * d, U, row_of + from, mine, count, d);
        }
        free(mine);
    }
    return failed;
}

/* ---- gradients and update in one ------------------------------------------------------------------------------------ */

typedef struct {
    const i64 *starts, *order, *row_of;
    const float *values, *delta; /* code and its gradient, by entry */
    const float *upstream;       /* rows that the decoder's gradient adds up */
    const float *inputs;         /* rows that the encoder's gradient adds up; row modulo `tokens` */
    i64 width, d_in, d_out, tokens;
    float *W_enc, *W_dec;
    float *enc_m, *enc_v, *dec_m, *dec_v;
    i64 unit_decoder;
    const float *pull; /* by latent, or NULL: added to the decoder's gradient in multiples of the decoder row */
    double *norms;   /* one a block */
    double *path;    /* (blocks, d_in): sum of bias gradient times encoder row */
    float *bias;     /* gradient of the encoder bias */
    float clip;      /* factor put on every gradient */
    float beta1, beta2, step_size, correction, eps;
} Update;

static inline void adam(float *p, float *m, float *v, const float *g, i64 n, const Update *u) {
    const float b1 = u->beta1, b2 = u->beta2, c1 = 1 - b1, c2 = 1 - b2;
    const float clip = u->clip, step = u->step_size, fix = u->correction, eps = u->eps;
#pragma omp simd
    for (i64 i = 0; i < n; i++) {
        float gradient = g[i] * clip;
        m[i] = b1 * m[i] + c1 * gradient;
        v[i] = b2 * v[i] + c2 * gradient * gradient;
        p[i] -= step * m[i] / (sqrtf(v[i]) / fix + eps);
    }
}

/* `apply` 0: norms, path and bias gradients only; 1: the same gradients again, given to Adam at once. Making them twice
   costs less than the memory that they would fill. */
EXPORT int pm_update(const Update *u, i64 apply) {
    const i64 blocks = (u->width + BLOCK - 1) / BLOCK;
    int failed = 0;
#pragma omp parallel
    {
        i64 room = 0;
        float *z = NULL, *e = NULL;
        i64 *rows = NULL;
        float *gd = malloc(u->d_out * sizeof(float)), *ge = malloc(u->d_in * sizeof(float));
#pragma omp for schedule(dynamic, 1)
        for (i64 block = 0; block < blocks; block++) {
            double norm = 0, *path = u->path + block * u->d_in;
            i64 stop = (block + 1) * BLOCK < u->width ? (block + 1) * BLOCK : u->width;
            if (!apply) memset(path, 0, u->d_in * sizeof(double));
            for (i64 c = block * BLOCK; c < stop; c++) {
                i64 from = u->starts[c], count = u->starts[c + 1] - from;
                if (count > room) {
                    room = 2 * count;
                    free(z), free(e), free(rows);
                    z = malloc(room * sizeof(float)), e = malloc(room * sizeof(float)), rows = malloc(room * sizeof(i64));
                }
                if (!gd || !ge || (count && (!z || !e || !rows))) {
                    room = 0;
#pragma omp atomic write
                    failed = 1;
                    break;
                }
                float *w_dec = u->W_dec + c * u->d_out, *w_enc = u->W_enc + c * u->d_in;
                if (apply || count) {
                    float gb = 0;
                    for (i64 j = 0; j < count; j++) {
                        i64 at = u->order[from + j];
                        z[j] = u->values[at], e[j] = u->delta[at], gb += e[j];
                        i64 row = u->row_of[from + j];
                        rows[j] = row >= u->tokens ? row - u->tokens : row;
                    }
                    gather(gd, u->upstream, u->row_of + from, z, count, u->d_out);
                    gather(ge, u->inputs, rows, e, count, u->d_in);
                    if (u->pull) axpy(gd, u->pull[c], w_dec, u->d_out);
                    if (u->unit_decoder && count) axpy(gd, -dot(gd, w_dec, u->d_out), w_dec, u->d_out);
                    if (!apply) {
                        norm += (double)dot(gd, gd, u->d_out) + dot(ge, ge, u->d_in);
                        u->bias[c] = gb;
                        for (i64 i = 0; i < u->d_in; i++) path[i] += (double)gb * w_enc[i];
                    }
                } else {
                    u->bias[c] = 0;
                }
                if (!apply) continue;
                adam(w_enc, u->enc_m + c * u->d_in, u->enc_v + c * u->d_in, ge, u->d_in, u);
                adam(w_dec, u->dec_m + c * u->d_out, u->dec_v + c * u->d_out, gd, u->d_out, u);
                if (u->unit_decoder) {
                    float size = sqrtf(dot(w_dec, w_dec, u->d_out));
                    float inverse = 1.0f / (size > 1.17549435e-38f ? size : 1.17549435e-38f);
#pragma omp simd
                    for (i64 i = 0; i < u->d_out; i++) w_dec[i] *= inverse;
                }
            }
            if (!apply) u->norms[block] = norm;
        }
        free(z), free(e), free(rows), free(gd), free(ge);
    }
    return failed;
}
