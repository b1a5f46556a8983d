//! Positions and the store.

use std::num::NonZeroUsize;

use super::{Activations, Hip, HipError, View, view_of};
use crate::hip::activations::Form;
use crate::hip::device::Purpose;
use crate::hip::launch::attention::{self, Attention, Cache, SplitUnit};
use crate::hip::launch::rope::{self, RopeAngles, RopeWrite};
use crate::hip::launch::sampling::{self, TopLogits};
use crate::{AttentionParams, KvStore, KvType, Picks, RopeKind, RopeTable, RowIndex};

impl Hip {
    pub(crate) fn rope_and_write(
        &self,
        rows: &RowIndex,
        table: &RopeTable,
        [q, k]: [&mut Activations; 2],
        v: &Activations,
        (store, layer): (&KvStore, usize),
    ) -> Result<(), HipError> {
        if rows.n_rows() == 0 {
            return Ok(());
        }
        let pairs = table.inverse_frequencies().len();
        let angles = match pairs {
            0 => None,
            _ => Some(self.angles(rows, table)?),
        };
        let op = RopeWrite {
            n_heads: q.row_len() / store.shape().head_dim_k,
            q: q.write_numbers(),
            k: k.write_numbers(),
            v: v.numbers(),
            angles: angles.as_ref(),
            slots: &self.lists(rows).slots_view()?,
            cache: cache(store, layer),
            rows: rows.n_rows(),
            pairs,
            halves: table.params().kind == RopeKind::Halves,
        };
        // SAFETY: the index let no block pass that its store does not have, which is of the same size as this one; rows that were added have none.
        unsafe { rope::rope_write(self.stream(), self.kernels(), op) }
    }

    /// The angles of the step's rows, made once for all layers.
    fn angles(&self, rows: &RowIndex, table: &RopeTable) -> Result<View, HipError> {
        let frequencies = table.on_gpu(self)?;
        let pairs = table.inverse_frequencies().len();
        let lists = self.lists(rows);
        lists.angles(frequencies, pairs, |angles| {
            let op = RopeAngles {
                positions: &lists.positions_view()?,
                stride: 2,
                frequencies,
                angles,
                rows: rows.n_rows(),
                pairs,
                factor: table.params().attn_factor,
            };
            rope::rope_angles(self.stream(), self.kernels(), op)
        })
    }

    /// Few rows that each end a sequence share a grid with all splits of their contexts; many rows of a sequence go in tiles; stores in f32 and odd heads take a kernel without matrix cores.
    pub(crate) fn attention(
        &self,
        rows: &RowIndex,
        q: &Activations,
        (store, layer): (&KvStore, usize),
        params: AttentionParams<'_>,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        if rows.n_rows() == 0 {
            return Ok(());
        }
        let (shape, lists) = (store.shape(), self.lists(rows));
        let n_heads = q.row_len() / shape.head_dim_k;
        let (tables, places) = (lists.tables_view()?, lists.places_view()?);
        let op = Attention {
            q: q.numbers(),
            cache: cache(store, layer),
            tables: &tables,
            table_stride: rows.table_stride(),
            places: &places,
            sinks: params.sinks.map(view_of),
            rows: rows.n_rows(),
            n_heads,
            scale: params.scale,
            window: params.window.map(NonZeroUsize::get),
            soft_cap: params.soft_cap,
        };
        let (stream, kernels) = (self.stream(), self.kernels());
        if !op.cache.has_matrix_cores(n_heads) {
            // SAFETY: the index held every table and position against a store of this size.
            return unsafe { attention::attention_plain(stream, kernels, op, out.write_numbers()) };
        }
        if rows.is_one_row_each() || self.is_batch_invariant() {
            let (n, n_kv_heads) = (op.rows, shape.n_kv_heads);
            let unit = match self.is_batch_invariant() {
                true => SplitUnit::Short,
                false => SplitUnit::for_rows(n),
            };
            let partial = attention::partial_bytes(n, n_heads, shape.head_dim_v);
            let partial = self.scratch(Purpose::Partial, partial)?;
            let counters = attention::counter_bytes(n, n_kv_heads);
            let counters = self.scratch(Purpose::Counters, counters)?;
            let out = out.write_forms(&[Form::Int8]);
            let scratch = [&partial, &counters];
            // SAFETY: as above; scratch begins as zeros, and only this kernel uses the counters, which it leaves zero.
            return unsafe { attention::attention_decode(stream, kernels, op, unit, out, scratch) };
        }
        let tile = attention::tile_rows(shape.head_dim_k, n_heads, shape.n_kv_heads);
        let (tiles, n_tiles) = lists.tiles(|| rows.runs(tile))?;
        let out = out.write_numbers();
        // SAFETY: as above, and runs are of rows that exist, of one table each, at positions one after the other.
        unsafe { attention::attention_prefill(stream, kernels, op, out, &tiles, n_tiles) }
    }

    pub(crate) fn argmax(
        &self,
        [rows, n_vocab]: [usize; 2],
        logits: &Activations,
        picks: &Picks,
    ) -> Result<(), HipError> {
        let memory = picks
            .memory()
            .expect("the device was compared: it is this GPU");
        let op = TopLogits {
            logits: logits.numbers(),
            ids: &memory.ids()?,
            values: Some(&memory.logits()?),
            log_sums: None,
            rows,
            count: n_vocab,
            n: 1,
        };
        sampling::top_logits(self.stream(), self.kernels(), op)
    }
}

fn cache(store: &KvStore, layer: usize) -> Cache<'_> {
    let shape = store.shape();
    let views = store
        .memory()
        .expect("the store's device was compared: it is this GPU")
        .layer(layer);
    Cache {
        keys: &views.keys,
        values: &views.values,
        is_f32: shape.kv_type == KvType::F32,
        n_blocks: shape.n_blocks,
        block_len: shape.block_len,
        n_kv_heads: shape.n_kv_heads,
        head_dim_k: shape.head_dim_k,
        head_dim_v: shape.head_dim_v,
        key_stride: shape.key_stride(),
        value_stride: shape.value_stride(),
    }
}
