//! Paged attention against all scores, one softmax and one sum in f64.

use half::f16;
use kernels::hip::View;
use kernels::hip::launch::attention::{
    Attention, Cache, SplitUnit, attention_decode, attention_plain, attention_prefill,
    counter_bytes, partial_bytes, tile_rows,
};
use kernels::hip::launch::{Forms, Int8};

use super::cases::Random;
use super::products::{check, check_quants};
use super::support::{downloaded, kernels, memory, stream, uploaded};

/// One sequence whose last rows are asked for.
#[derive(Debug, Clone, Copy)]
struct Case {
    head_dim: usize,
    n_heads: usize,
    n_kv_heads: usize,
    /// Positions of the sequence.
    len: usize,
    rows: usize,
    window: Option<usize>,
    soft_cap: Option<f32>,
    sinks: bool,
    cache_f32: bool,
}

const BLOCK_LEN: usize = 16;

/// A case with its operands on the device.
struct Made {
    case: Case,
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    sinks: Vec<f32>,
    table: Vec<u32>,
    stride: usize,
    /// Queries, keys, values, table, places, sinks.
    views: [View; 6],
}

impl Case {
    fn made(self) -> Made {
        let mut random = Random::new((self.head_dim + self.len) as u64);
        let n_blocks = self.len.div_ceil(BLOCK_LEN) + 2;
        let stride = self.head_dim.next_multiple_of(32);
        let table = random.shuffled(n_blocks);
        let round = |x: f32| {
            if self.cache_f32 {
                x
            } else {
                f16::from_f32(x).to_f32()
            }
        };
        let mut cache = || -> Vec<f32> {
            random
                .numbers(n_blocks * self.n_kv_heads * BLOCK_LEN * stride)
                .into_iter()
                .map(round)
                .collect()
        };
        let (keys, values) = (cache(), cache());
        let bytes = |numbers: &[f32]| -> Vec<u8> {
            if self.cache_f32 {
                numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
            } else {
                numbers
                    .iter()
                    .flat_map(|&n| f16::from_f32(n).to_le_bytes())
                    .collect()
            }
        };
        let q = random.numbers(self.rows * self.n_heads * self.head_dim);
        let sinks = random.numbers(self.n_heads);
        let places: Vec<[u32; 2]> = (0..self.rows)
            .map(|r| [0, u32::try_from(self.len - self.rows + r).expect("small")])
            .collect();
        let views = [
            uploaded(&q),
            uploaded(&bytes(&keys)),
            uploaded(&bytes(&values)),
            uploaded(&table),
            uploaded(&places),
            uploaded(&sinks),
        ];
        Made {
            case: self,
            q,
            keys,
            values,
            sinks,
            table,
            stride,
            views,
        }
    }
}

impl Made {
    fn op(&self) -> Attention<'_> {
        let Case {
            head_dim,
            n_heads,
            n_kv_heads,
            ..
        } = self.case;
        let [q, keys, values, tables, places, sinks] = &self.views;
        Attention {
            q,
            cache: Cache {
                keys,
                values,
                is_f32: self.case.cache_f32,
                n_blocks: self.table.len(),
                block_len: BLOCK_LEN,
                n_kv_heads,
                head_dim_k: head_dim,
                head_dim_v: head_dim,
                key_stride: self.stride,
                value_stride: self.stride,
            },
            tables,
            table_stride: self.table.len(),
            places,
            sinks: self.case.sinks.then_some(sinks),
            rows: self.case.rows,
            n_heads,
            scale: self.scale(),
            window: self.case.window,
            soft_cap: self.case.soft_cap,
        }
    }

    fn scale(&self) -> f32 {
        2.0 / (self.case.head_dim as f32).sqrt()
    }

    fn expected(&self) -> Vec<f64> {
        let Case {
            head_dim,
            n_heads,
            n_kv_heads,
            len,
            rows,
            ..
        } = self.case;
        let mut out = Vec::new();
        for (i, q) in self.q.chunks(head_dim).enumerate() {
            let (r, h) = (i / n_heads, i % n_heads);
            let position = len - rows + r;
            let first = self
                .case
                .window
                .map_or(0, |window| (position + 1).saturating_sub(window));
            let place = |p: usize| {
                ((self.table[p / BLOCK_LEN] as usize * n_kv_heads + h * n_kv_heads / n_heads)
                    * BLOCK_LEN
                    + p % BLOCK_LEN)
                    * self.stride
            };
            let score = |p: usize| {
                let dot: f64 = q
                    .iter()
                    .zip(&self.keys[place(p)..])
                    .map(|(&q, &k)| f64::from(q) * f64::from(k))
                    .sum();
                let score = dot * f64::from(self.scale());
                self.case.soft_cap.map_or(score, |cap| {
                    f64::from(cap) * (score / f64::from(cap)).tanh()
                })
            };
            let weights: Vec<f64> = (first..=position).map(|p| score(p).exp()).collect();
            let sink = if self.case.sinks {
                f64::from(self.sinks[h]).exp()
            } else {
                0.0
            };
            let total = weights.iter().sum::<f64>() + sink;
            for d in 0..head_dim {
                let sum: f64 = (first..=position)
                    .zip(&weights)
                    .map(|(p, w)| w * f64::from(self.values[place(p) + d]))
                    .sum();
                out.push(sum / total);
            }
        }
        out
    }

    fn decoded(&self, unit: SplitUnit) -> Vec<f32> {
        let Case {
            head_dim,
            n_heads,
            n_kv_heads,
            rows,
            ..
        } = self.case;
        let stream = stream();
        let n = n_heads * head_dim;
        let (quants, blocks) = Int8::bytes(rows, n);
        let (out, quants, blocks) = (memory(rows * n * 4), memory(quants), memory(blocks));
        let partial = memory(partial_bytes(rows, n_heads, head_dim));
        let counters = uploaded(&vec![0u8; counter_bytes(rows, n_kv_heads)]);
        let int8 = head_dim.is_multiple_of(32).then_some(Int8 {
            quants: &quants,
            blocks: &blocks,
        });
        let forms = Forms {
            f32: Some(&out),
            int8,
            half: None,
        };
        // Twice, as in a graph: the counters must be as they were.
        for _ in 0..2 {
            // SAFETY: the table has a block of the cache for every position; the counters are zero.
            unsafe {
                attention_decode(
                    &stream,
                    &kernels(),
                    self.op(),
                    unit,
                    forms,
                    [&partial, &counters],
                )
            }
            .expect("enqueued");
        }
        let numbers = downloaded(&stream, &out);
        if int8.is_some() {
            check_quants(
                &numbers,
                &downloaded(&stream, &quants),
                &downloaded(&stream, &blocks),
            );
        }
        assert!(
            downloaded::<u32>(&stream, &counters)
                .iter()
                .all(|&count| count == 0)
        );
        numbers
    }

    /// In tiles of at most `tile` rows.
    fn prefilled(&self, tile: usize) -> Vec<f32> {
        let Case {
            head_dim,
            n_heads,
            n_kv_heads,
            rows,
            ..
        } = self.case;
        let stream = stream();
        let tile = tile.min(tile_rows(head_dim, n_heads, n_kv_heads));
        let narrow = |n: usize| u32::try_from(n).expect("small");
        let tiles: Vec<[u32; 2]> = (0..rows)
            .step_by(tile)
            .map(|first| [narrow(first), narrow(tile.min(rows - first))])
            .collect();
        let (tiles_view, out) = (uploaded(&tiles), memory(rows * n_heads * head_dim * 4));
        // SAFETY: the tiles are rows of one sequence in order; the table has a block for every position.
        unsafe {
            attention_prefill(
                &stream,
                &kernels(),
                self.op(),
                &out,
                &tiles_view,
                tiles.len(),
            )
        }
        .expect("enqueued");
        downloaded(&stream, &out)
    }

    fn plain(&self) -> Vec<f32> {
        let stream = stream();
        let out = memory(self.case.rows * self.case.n_heads * self.case.head_dim * 4);
        // SAFETY: the table has a block of the cache for every position.
        unsafe { attention_plain(&stream, &kernels(), self.op(), &out) }.expect("enqueued");
        downloaded(&stream, &out)
    }
}

const CASE: Case = Case {
    head_dim: 64,
    n_heads: 4,
    n_kv_heads: 2,
    len: 1,
    rows: 1,
    window: None,
    soft_cap: None,
    sinks: false,
    cache_f32: false,
};

fn cases() -> Vec<Case> {
    let heads = [64, 80, 96, 128, 256].map(|head_dim| Case {
        head_dim,
        len: 70,
        rows: 5,
        ..CASE
    });
    let others = [
        CASE,
        Case {
            n_heads: 7,
            n_kv_heads: 1,
            len: 300,
            rows: 12,
            sinks: true,
            ..CASE
        },
        Case {
            n_heads: 16,
            n_kv_heads: 1,
            len: 65,
            rows: 3,
            soft_cap: Some(3.0),
            ..CASE
        },
        Case {
            len: 600,
            rows: 20,
            window: Some(100),
            sinks: true,
            soft_cap: Some(20.0),
            ..CASE
        },
        Case {
            len: 1100,
            rows: 2,
            ..CASE
        },
        Case {
            n_heads: 3,
            n_kv_heads: 3,
            len: 64,
            rows: 64,
            ..CASE
        },
    ];
    heads.into_iter().chain(others).collect()
}

/// Queries, weights and sums of the softmax are rounded to 11 bits; values are at most 1.
const ROUNDED_TO_F16: f32 = 3e-3;

#[test]
fn decode_and_prefill_attend_to_what_they_see() {
    for case in cases() {
        let made = case.made();
        let expected = made.expected();
        for unit in [SplitUnit::Short, SplitUnit::Long] {
            check(
                &made.decoded(unit),
                |i| expected[i],
                |_| ROUNDED_TO_F16,
                &("decode", unit, case),
            );
        }
        check(
            &made.prefilled(usize::MAX),
            |i| expected[i],
            |_| ROUNDED_TO_F16,
            &("prefill", case),
        );
    }
}

#[test]
fn prefill_gives_the_same_bits_in_any_chunks() {
    let made = Case {
        len: 150,
        rows: 30,
        window: Some(70),
        ..CASE
    }
    .made();
    let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let whole = bits(made.prefilled(usize::MAX));
    for tile in [1, 7] {
        assert_eq!(bits(made.prefilled(tile)), whole, "tiles of {tile}");
    }
}

#[test]
fn plain_attention_takes_any_head_in_f32() {
    let odd = [1, 20, 72, 200].map(|head_dim| Case {
        head_dim,
        len: 40,
        rows: 3,
        cache_f32: true,
        ..CASE
    });
    let long = Case {
        cache_f32: true,
        len: 600,
        rows: 2,
        window: Some(300),
        sinks: true,
        soft_cap: Some(5.0),
        ..CASE
    };
    for case in odd.into_iter().chain([
        long,
        Case {
            len: 300,
            rows: 2,
            ..CASE
        },
    ]) {
        let made = case.made();
        let expected = made.expected();
        // Sums of f32 over a few hundred positions.
        check(&made.plain(), |i| expected[i], |_| 2e-5, &("plain", case));
    }
}
