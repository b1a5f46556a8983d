//! Experts: a choice for each row, and the products of slots, each with the expert that its row goes to.

use super::{Activations, Hip, HipError, View, view_of};
use crate::hip::activations::Form;
use crate::hip::device::Purpose;
use crate::hip::launch::experts::{
    self, AddExperts, ChooseExperts, ExpertWeights, Gating, Slots, add_experts, choose_experts,
    order_slots,
};
use crate::hip::launch::matrix::{Tile, has_matmul};
use crate::hip::launch::rowwise::{self, Activate};
use crate::hip::ops::matrix::{Way, dot_rows};
use crate::hip::ops::rows::function;
use crate::hip::{MATRICES, RoutingMemory};
use crate::ops::{Activation, ExpertNetwork};
use crate::routing::{Memory, Routing, Scoring};

impl Hip {
    pub(crate) fn route(
        &self,
        (layer, rows): (usize, usize),
        logits: &Activations,
        bias: Option<&View>,
        routing: &mut Routing,
    ) -> Result<(), HipError> {
        routing.set_unknown(layer, rows);
        let (params, n_experts) = (*routing.params(), routing.size().n_experts);
        let memory = on_gpu(&mut routing.memory);
        let slots = rows * params.n_used;
        let op = ChooseExperts {
            logits: logits.numbers(),
            bias,
            ids: &memory.ids(layer, slots)?,
            weights: &memory.weights(layer, slots)?,
            rows,
            n_experts,
            k: params.n_used,
            gating: match params.scoring {
                Scoring::Softmax => Gating::SoftmaxOfAll,
                Scoring::Sigmoid => Gating::Sigmoid,
                Scoring::SoftmaxOfChosen => Gating::SoftmaxOfChosen,
            },
            normalise: params.normalised,
            scale: params.scale,
        };
        choose_experts(self.stream(), self.kernels(), op)
    }

    /// The caller has checked that the networks are alike and that every expert is there that a row goes to.
    pub(crate) fn experts(
        &self,
        layer: usize,
        routing: &mut Routing,
        networks: &[Option<ExpertNetwork<'_>>],
        activation: Activation,
        x: &Activations,
        out: &mut Activations,
    ) -> Result<(), HipError> {
        let rows = routing.n_rows(layer);
        if rows == 0 {
            return Ok(());
        }
        let (size, n_used) = (*routing.size(), routing.params().n_used);
        let memory = on_gpu(&mut routing.memory);
        let stack = Stack::enter(layer, networks, memory)?;
        let slots = rows * n_used;
        let run = Run {
            hip: self,
            tile: self.expert_tile(rows, slots, size.n_experts),
            ids: &memory.ids(layer, slots)?,
            weights: &memory.weights(layer, slots)?,
            order: memory.order().map(View::clone),
            n_experts: size.n_experts,
        };
        let (hidden, made) = memory.halves();
        run.order(&stack, slots)?;
        let bytes = slots * size.n_ff * size_of::<f32>();
        let scratch = self.scratch(Purpose::Gates, 2 * bytes)?;
        let (gates, ups) = (scratch.slice(0..bytes)?, scratch.slice(bytes..2 * bytes)?);
        let of_rows = Slots {
            count: slots,
            share: n_used,
        };
        let [gate, up, down] = &stack.0;
        run.product(gate, x, of_rows, &gates)?;
        run.product(up, x, of_rows, &ups)?;
        let op = Activate {
            gate: &gates,
            up: Some(&ups),
            out: hidden.write_forms(&[Form::Int8, Form::Half]),
            rows: slots,
            n: size.n_ff,
            function: function(activation),
        };
        rowwise::activate(self.stream(), self.kernels(), op)?;
        let alone = Slots {
            count: slots,
            share: 1,
        };
        run.product(down, hidden, alone, made)?;
        let out = out.write_numbers();
        let op = AddExperts {
            y: made,
            weights: run.weights,
            add: Some(out),
            out,
            rows,
            k: n_used,
            n: size.n_embd,
        };
        add_experts(self.stream(), self.kernels(), op)
    }

    /// As for other products; an expert has its share of the slots.
    fn expert_tile(&self, rows: usize, slots: usize, n_experts: usize) -> Option<Tile> {
        if self.is_batch_invariant() {
            return Some(Tile::Middle);
        }
        let per_expert = slots.div_ceil(n_experts);
        (self.way(rows) != Way::Dots).then(|| Tile::for_rows(per_expert))
    }
}

/// One matrix of all experts that are there.
struct Matrices {
    table: View,
    biases: Option<View>,
    /// What the tables name.
    held: Vec<View>,
    tensor_type: gguf::TensorType,
    n_out: usize,
    n_in: usize,
}

/// Gates, ups and downs.
struct Stack([Matrices; MATRICES]);

impl Stack {
    /// Has the layer's tables name the networks that are there.
    fn enter(
        layer: usize,
        networks: &[Option<ExpertNetwork<'_>>],
        memory: &mut RoutingMemory,
    ) -> Result<Stack, HipError> {
        let n_experts = networks.len();
        let there = || {
            let networks = networks.iter().enumerate();
            networks.filter_map(|(expert, network)| Some((expert, network.as_ref()?.linears())))
        };
        let entries = there().flat_map(|(expert, linears)| {
            linears
                .into_iter()
                .enumerate()
                .flat_map(move |(index, linear)| {
                    let weight = (index, view_of(linear.weight));
                    let bias = linear.bias.map(|bias| (MATRICES + index, view_of(bias)));
                    let entry = move |(table, view): (usize, &View)| {
                        (table * n_experts + expert, view.address() as u64)
                    };
                    [Some(weight), bias].into_iter().flatten().map(entry)
                })
        });
        let tables = memory.enter(layer, entries)?;
        let [gate, up, down] = tables.matrices;
        let mut biases = tables.biases.into_iter();
        let (_, first) = there()
            .next()
            .expect("a row was routed, and its expert is there");
        let mut index = 0;
        let matrices = [gate, up, down].map(|table| {
            let linears = there().map(|(_, linears)| linears[index]);
            let held = linears.flat_map(|linear| {
                let bias = linear.bias.map(|bias| view_of(bias).clone());
                std::iter::once(view_of(linear.weight).clone()).chain(bias)
            });
            let held = held.collect();
            let linear = first[index];
            index += 1;
            Matrices {
                table,
                biases: biases.next().filter(|_| linear.bias.is_some()),
                held,
                tensor_type: linear.weight.tensor_type(),
                n_out: linear.weight.n_rows(),
                n_in: linear.weight.row_len(),
            }
        });
        Ok(Stack(matrices))
    }
}

/// What the products of a layer's experts share.
struct Run<'a> {
    hip: &'a Hip,
    /// That of products on matrix cores; `None` where slots meet their experts one by one.
    tile: Option<Tile>,
    ids: &'a View,
    weights: &'a View,
    /// Slots expert by expert, and where each expert's begin.
    order: [View; 2],
    n_experts: usize,
}

impl Run<'_> {
    fn tile_of(&self, matrices: &Matrices) -> Option<Tile> {
        self.tile
            .filter(|_| has_matmul(matrices.tensor_type, matrices.n_in))
    }

    /// Lists the slots expert by expert, if some product wants them so.
    fn order(&self, stack: &Stack, slots: usize) -> Result<(), HipError> {
        if !stack
            .0
            .iter()
            .any(|matrices| self.tile_of(matrices).is_some())
        {
            return Ok(());
        }
        let [order, first] = &self.order;
        let (stream, kernels) = (self.hip.stream(), self.hip.kernels());
        let sizes = [slots, self.n_experts];
        order_slots(stream, kernels, self.ids, [order, first], sizes)
    }

    fn product(
        &self,
        matrices: &Matrices,
        x: &Activations,
        slots: Slots,
        out: &View,
    ) -> Result<(), HipError> {
        let (stream, kernels) = (self.hip.stream(), self.hip.kernels());
        let weights = ExpertWeights {
            table: &matrices.table,
            biases: matrices.biases.as_ref(),
            held: &matrices.held,
            tensor_type: matrices.tensor_type,
            n_out: matrices.n_out,
            n_in: matrices.n_in,
            n_experts: self.n_experts,
        };
        let rows = slots.count / slots.share;
        match self.tile_of(matrices) {
            None => {
                let x = dot_rows(x, rows, [matrices.tensor_type])?;
                // SAFETY: the ids are a choice among these experts, every one that was chosen is there, and the tables were entered with its addresses, whose views are held.
                unsafe {
                    experts::expert_matvec(stream, kernels, weights, x, slots, [self.ids, out])
                }
            }
            Some(tile) => {
                let [order, first] = &self.order;
                let (x, lists) = (x.half(rows)?, [order, first, out]);
                // SAFETY: as above, and the lists were made of the same ids.
                unsafe { experts::expert_matmul(stream, kernels, tile, weights, x, slots, lists) }
            }
        }
    }
}

/// Where a routing has its memory whose device was compared.
fn on_gpu(memory: &mut Memory) -> &mut RoutingMemory {
    match memory {
        Memory::Gpu(memory) => memory,
        Memory::Host(_) => unreachable!("the routing's device was compared: it is this GPU"),
    }
}
