use gguf::ExtentId;
use kernels::{OpError, RowPlace, StepRows};

use super::{Model, With, Workspace};
use crate::plan::Plan;
use crate::residency::{ModelKey, Residency, Wanted};
use crate::scheduler::{Batch, SequenceId};

/// The rows of a batch as the ops want them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Token of each row.
    pub ids: Vec<u32>,
    /// Which table each row has, and its position in the sequence.
    pub places: Vec<RowPlace>,
    /// Blocks of each sequence, in the order of the batch's runs.
    pub tables: Vec<Vec<u32>>,
    /// The rows that need logits, ascending.
    pub logit_rows: Vec<u32>,
}

impl Rows {
    /// Lays out a batch. `look_up` gives the tokens and the blocks of a sequence.
    pub fn new<'a>(
        batch: &Batch,
        mut look_up: impl FnMut(SequenceId) -> (&'a [u32], &'a [u32]),
    ) -> Rows {
        let mut rows = Rows::default();
        for run in &batch.runs {
            let (tokens, blocks) = look_up(run.sequence);
            let table = to_u32(rows.tables.len());
            rows.tables.push(blocks.to_vec());
            let positions = run.start..run.end();
            for (position, &token) in positions.clone().zip(&tokens[positions]) {
                if position >= run.logits_from {
                    rows.logit_rows.push(to_u32(rows.ids.len()));
                }
                rows.ids.push(token);
                let position = to_u32(position);
                rows.places.push(RowPlace { table, position });
            }
        }
        rows
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Gives them to `set` in the form that an index takes.
    pub(super) fn enter<T>(&self, set: impl FnOnce(StepRows<'_>) -> T) -> T {
        let tables: Vec<&[u32]> = self.tables.iter().map(Vec::as_slice).collect();
        set(StepRows {
            ids: &self.ids,
            places: &self.places,
            tables: &tables,
            logit_rows: &self.logit_rows,
        })
    }

    /// Whether every row is one of its sequence's alone and has logits, as in a step that only decodes.
    fn decode_only(&self) -> bool {
        self.tables.len() == self.ids.len() && self.logit_rows.len() == self.ids.len()
    }
}

/// Positions and rows are bounded by the context and the batch, both far below.
fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("positions and rows are bounded by 32 bits")
}

/// How far a step got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One layer further, and the next is there too.
    Advanced,
    /// It cannot go on before this layer is resident.
    NotResident(usize),
    /// All layers are done; the logits stand in the workspace, if any row needed them.
    Done,
}

/// A forward pass over a batch that can stand still before any layer.
#[derive(Debug)]
pub struct Step {
    batch: Batch,
    rows: Rows,
    /// The layer that is next.
    layer: usize,
    /// What it needs of that layer, if it is one that steps use in part.
    chosen: Chosen,
    /// The same of such layers that it ran last.
    used: Vec<(usize, Vec<ExtentId>)>,
}

/// Experts of a layer, ascending, and the extents that they take.
#[derive(Debug, Default)]
struct Chosen {
    experts: Vec<u32>,
    extents: Vec<ExtentId>,
}

impl Step {
    /// A step that has not begun.
    pub fn new(batch: Batch, rows: Rows) -> Step {
        Step {
            batch,
            rows,
            layer: 0,
            chosen: Chosen::default(),
            used: Vec::new(),
        }
    }

    /// What it computes.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Its rows.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The layer that is next.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// The extents that one of the layers has used which it ran when it advanced last: all of them, or those that it chose.
    pub fn used<'a>(&'a self, plan: &'a Plan, layer: usize) -> &'a [ExtentId] {
        if !plan.is_routed(layer) {
            return &plan.extents[layer];
        }
        let used = self.used.iter().find(|(used, _)| *used == layer);
        used.map_or(&[], |(_, extents)| extents)
    }

    /// Runs the next layer, if it is resident, and holds the one after it. If it is not, nothing is computed. A device that records runs all layers at once, where all are resident and every row
    /// is the last of its sequence.
    /// # Errors
    /// What an op refused; the step cannot go on then.
    pub fn advance(
        &mut self,
        key: ModelKey,
        model: &mut Model,
        workspace: &mut Workspace,
        residency: &mut Residency,
    ) -> Result<Progress, OpError> {
        if self.want(key, model.plan(), residency) == Wanted::Waiting {
            return Ok(Progress::NotResident(self.layer));
        }
        if self.layer == 0 {
            if self.rows.decode_only() && model.device().records() && residency.is_whole(key) {
                return self.run_whole(key, model, workspace, residency);
            }
            workspace.begin(&self.rows)?;
        }
        let chosen = std::mem::take(&mut self.chosen);
        model.run_layer(self.layer, With::Chosen(&chosen.experts), workspace)?;
        self.used = vec![(self.layer, chosen.extents)];
        self.layer += 1;
        if self.layer == self.n_layers(model) {
            return Ok(Progress::Done);
        }
        if let Some(block) = model.plan().routed_block(self.layer) {
            let experts = workspace.chosen_experts(block)?;
            let extents = model.plan().chosen_extents(self.layer, &experts);
            self.chosen = Chosen { experts, extents };
        }
        Ok(match self.want(key, model.plan(), residency) {
            Wanted::Ready => Progress::Advanced,
            Wanted::Waiting => Progress::NotResident(self.layer),
        })
    }

    fn want(&self, key: ModelKey, plan: &Plan, residency: &mut Residency) -> Wanted {
        if plan.is_routed(self.layer) {
            residency.want_some(key, self.layer, &self.chosen.extents)
        } else {
            residency.want(key, self.layer)
        }
    }

    /// Runs all layers of a model that is resident as a whole. The first step of a shape is run, the second is recorded, and those that follow run what was recorded. Which experts its rows went
    /// to is asked when it is done, so that what it used is counted.
    fn run_whole(
        &mut self,
        key: ModelKey,
        model: &mut Model,
        workspace: &mut Workspace,
        residency: &mut Residency,
    ) -> Result<Progress, OpError> {
        let n_layers = self.n_layers(model);
        let shape = workspace.begin_whole(&self.rows)?;
        let device = model.device().clone();
        let mut run = |workspace: &mut Workspace| {
            (0..n_layers).try_for_each(|layer| model.run_layer(layer, With::All, workspace))
        };
        match workspace.recordings.remove(&shape) {
            None => {
                run(workspace)?;
                workspace.recordings.insert(shape, None);
            }
            Some(recording) => {
                let recording = match recording {
                    Some(recording) => Some(recording),
                    None => device.record(|| run(workspace))?,
                };
                if let Some(recording) = &recording {
                    recording.run()?;
                }
                workspace.recordings.insert(shape, recording);
            }
        }
        workspace.bring_choices()?;
        for layer in 1..n_layers {
            let Some(block) = model.plan().routed_block(layer) else {
                residency.want(key, layer);
                continue;
            };
            let experts = workspace.chosen_experts(block)?;
            let extents = model.plan().chosen_extents(layer, &experts);
            residency.want_some(key, layer, &extents);
            self.used.push((layer, extents));
        }
        self.layer = n_layers;
        Ok(Progress::Done)
    }

    /// Layers to run: a step of which no row needs logits ends before the output.
    fn n_layers(&self, model: &Model) -> usize {
        let n_layers = model.plan().layers.len();
        n_layers - usize::from(self.rows.logit_rows.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Run;

    #[test]
    fn rows_of_a_mixed_batch() {
        let run = |sequence, start, len, logits_from| Run {
            sequence: SequenceId(sequence),
            start,
            len,
            logits_from,
        };
        let batch = Batch {
            model: ModelKey(1),
            runs: vec![run(1, 33, 1, 33), run(2, 31, 3, 34), run(3, 0, 2, 0)],
        };
        let tokens: Vec<u32> = (100..200).collect();
        let blocks = |id: SequenceId| -> &[u32] {
            match id.0 {
                1 => &[7, 3],
                2 => &[5, 6],
                _ => &[0],
            }
        };
        let rows = Rows::new(&batch, |id| (&tokens, blocks(id)));
        assert_eq!(rows.ids, [133, 131, 132, 133, 100, 101]);
        let places = rows.places.iter();
        let places: Vec<(u32, u32)> = places.map(|place| (place.table, place.position)).collect();
        assert_eq!(places, [(0, 33), (1, 31), (1, 32), (1, 33), (2, 0), (2, 1)]);
        assert_eq!(rows.tables, [vec![7, 3], vec![5, 6], vec![0]]);
        assert_eq!(rows.logit_rows, [0, 4, 5]);
    }
}
