use std::collections::HashMap;

use super::NotYet;
use crate::SamplingParams;

/// What is done to the logits of single tokens before one is chosen.
#[derive(Clone, Debug)]
pub(super) struct Adjustment {
    repetition: f32,
    frequency: f32,
    presence: f32,
    /// How often each token that a penalty looks at occurs in the output. Those of the prompt are here only if they are to count as repeated.
    occurrences: HashMap<u32, u32>,
    bias: Vec<(u32, f32)>,
    not_yet: NotYet,
}

impl Adjustment {
    pub(super) fn new(params: &SamplingParams, prompt: &[u32], not_yet: NotYet) -> Adjustment {
        let mut adjustment = Adjustment {
            repetition: params.repetition_penalty,
            frequency: params.frequency_penalty,
            presence: params.presence_penalty,
            occurrences: HashMap::new(),
            bias: params.logit_bias.clone(),
            not_yet,
        };
        if adjustment.repeats() {
            adjustment
                .occurrences
                .extend(prompt.iter().map(|&id| (id, 0)));
        }
        adjustment
    }

    /// The output has one token more.
    pub(super) fn said(&mut self, token: u32) {
        if self.penalises() {
            *self.occurrences.entry(token).or_default() += 1;
        }
    }

    /// Whether anything is done to the row of the output's token number `index`.
    pub(super) fn changes(&self, index: u64) -> bool {
        !self.occurrences.is_empty() || !self.bias.is_empty() || self.holds_back(index)
    }

    /// Does it. Tokens that the row does not have are passed over.
    pub(super) fn apply(&self, row: &mut [f32], index: u64) {
        for (&id, &count) in &self.occurrences {
            if let Some(logit) = row.get_mut(id as usize) {
                *logit = self.penalised(*logit, count);
            }
        }
        for &(id, bias) in &self.bias {
            if let Some(logit) = row.get_mut(id as usize) {
                *logit += bias;
            }
        }
        if self.holds_back(index) {
            for &id in &self.not_yet.ids {
                if let Some(logit) = row.get_mut(id as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// The logit of a token that occurred, so many times in the output.
    fn penalised(&self, logit: f32, count: u32) -> f32 {
        let repeated = if logit > 0.0 {
            logit / self.repetition
        } else {
            logit * self.repetition
        };
        if count == 0 {
            return repeated;
        }
        repeated - (self.frequency * count as f32 + self.presence)
    }

    #[expect(clippy::float_cmp, reason = "1 is sent to change nothing")]
    fn repeats(&self) -> bool {
        self.repetition != 1.0
    }

    fn penalises(&self) -> bool {
        self.repeats() || self.frequency != 0.0 || self.presence != 0.0
    }

    fn holds_back(&self, index: u64) -> bool {
        index < u64::from(self.not_yet.min_tokens) && !self.not_yet.ids.is_empty()
    }
}
