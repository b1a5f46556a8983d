//! Attention over a paged cache.

use kernels::hip::View;
use kernels::hip::launch::Forms;
use kernels::hip::launch::attention::{
    Attention, Cache, SplitUnit, attention_decode, attention_prefill, counter_bytes, partial_bytes,
};

use crate::bench::{Bench, Outcome};

impl Bench {
    /// 32 heads over 8 heads of keys, 128 numbers each: keys, values, tables, places.
    fn cache(
        &self,
        rows: usize,
        len: usize,
        place: impl Fn(usize) -> [u32; 2],
    ) -> Outcome<[View; 5]> {
        let n_blocks = rows * len.div_ceil(16);
        let bytes = n_blocks * 16 * 8 * 128 * 2;
        let (keys, values) = (self.memory(bytes)?, self.memory(bytes)?);
        self.stream.fill(&keys, 0x30)?;
        self.stream.fill(&values, 0x30)?;
        let table: Vec<u8> = (0..u32::try_from(n_blocks)?)
            .flat_map(u32::to_le_bytes)
            .collect();
        let n_rows = if rows == 1 { len } else { rows };
        let places: Vec<u8> = (0..n_rows)
            .flat_map(place)
            .flat_map(u32::to_le_bytes)
            .collect();
        let q = self.memory(n_rows * 4096 * 4)?;
        self.stream.fill(&q, 0)?;
        Ok([keys, values, self.upload(&table)?, self.upload(&places)?, q])
    }

    fn attention<'a>(
        &self,
        [keys, values, tables, places, q]: &'a [View; 5],
        rows: usize,
        len: usize,
    ) -> Attention<'a> {
        Attention {
            q,
            cache: Cache {
                keys,
                values,
                is_f32: false,
                n_blocks: keys.len() / (16 * 8 * 128 * 2),
                block_len: 16,
                n_kv_heads: 8,
                head_dim_k: 128,
                head_dim_v: 128,
                key_stride: 128,
                value_stride: 128,
            },
            tables,
            table_stride: len.div_ceil(16),
            places,
            sinks: None,
            rows,
            n_heads: 32,
            scale: 0.088,
            window: None,
            soft_cap: None,
        }
    }

    pub(crate) fn decode_attention(&self, rows: usize, len: usize) -> Outcome<()> {
        let last = u32::try_from(len)? - 1;
        let views = self.cache(rows, len, |r| {
            [
                u32::try_from(r)
                    .unwrap_or(0)
                    .min(u32::try_from(rows).unwrap_or(1) - 1),
                last,
            ]
        })?;
        let out = self.memory(rows * 4096 * 4)?;
        let partial = self.memory(partial_bytes(rows, 32, 128))?;
        let counters = self.memory(counter_bytes(rows, 8))?;
        self.stream.fill(&counters, 0)?;
        let forms = Forms {
            f32: Some(&out),
            ..Forms::default()
        };
        let us = self.time(20, |_| {
            // SAFETY: the tables have a block for every position of every row; the counters are zero.
            unsafe {
                attention_decode(
                    &self.stream,
                    &self.kernels,
                    self.attention(&views, rows, len),
                    SplitUnit::for_rows(rows),
                    forms,
                    [&partial, &counters],
                )
            }
        })?;
        let bytes = 2 * rows * len * 8 * 128 * 2;
        println!(
            "decode attention, {rows:>2} rows of {len:>4} positions: {us:>7.1} us {:>6.0} GB/s",
            bytes as f64 / us / 1e3
        );
        Ok(())
    }

    pub(crate) fn prefill_attention(&self, len: usize) -> Outcome<()> {
        let views = self.cache(1, len, |r| [0, u32::try_from(r).unwrap_or(0)])?;
        let out = self.memory(len * 4096 * 4)?;
        let tiles: Vec<u8> = (0..len / 16)
            .flat_map(|tile| [tile * 16, 16])
            .flat_map(|n| u32::try_from(n).unwrap_or(0).to_le_bytes())
            .collect();
        let tiles = self.upload(&tiles)?;
        let us = self.time(4, |_| {
            // SAFETY: tiles are 16 rows of one sequence in order; the table has a block for every position.
            unsafe {
                attention_prefill(
                    &self.stream,
                    &self.kernels,
                    self.attention(&views, len, len),
                    &out,
                    &tiles,
                    len / 16,
                )
            }
        })?;
        let operations = 4.0 * 32.0 * 128.0 * (len * len / 2) as f64;
        println!(
            "prefill attention, {len} positions: {us:>7.1} us {:>6.1} TFLOP/s",
            operations / us / 1e6
        );
        Ok(())
    }
}
