//! The model once more, as the papers have it: f64, one position after the other, no op of ours. What the engine says must agree.

use std::collections::BTreeMap;

use engine::{EngineConfig, OutputOptions};
use kernels::Device;

use crate::model::{File, Tiny, write};
use crate::support::{attach, complete, config, prompt, request, start};

const N_HEADS: usize = 4;
const N_KV_HEADS: usize = 2;
const HEAD_DIM: usize = 8;
const EPS: f64 = 1e-5;

type Vector = Vec<f64>;

struct Naive {
    tensors: BTreeMap<String, Vector>,
    tiny: Tiny,
}

impl Naive {
    fn new(tiny: Tiny, file: &File) -> Naive {
        let mut tensors = BTreeMap::new();
        for info in file.directory.tensors() {
            let start = usize::try_from(info.offset_bytes).expect("a small file");
            let len = usize::try_from(info.len_bytes).expect("a small tensor");
            let numbers = file.bytes[start..][..len].chunks_exact(4);
            let numbers = numbers
                .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().expect("four bytes"))));
            tensors.insert(info.name.clone(), numbers.collect());
        }
        Naive { tensors, tiny }
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vector {
        let rows = self.tensors[&format!("{name}.weight")].chunks_exact(x.len());
        let mut out: Vector = rows
            .map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
            .collect();
        if let Some(bias) = self.tensors.get(&format!("{name}.bias")) {
            out.iter_mut()
                .zip(bias)
                .for_each(|(out, bias)| *out += bias);
        }
        out
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vector {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let weight = &self.tensors[&format!("{name}.weight")];
        x.iter()
            .zip(weight)
            .map(|(x, weight)| x / (mean + EPS).sqrt() * weight)
            .collect()
    }

    /// Turns each pair of each head by its angle at `position`.
    fn rope(&self, x: &mut [f64], position: usize) {
        let factors = self.tensors.get("rope_freqs.weight");
        for head in x.chunks_exact_mut(HEAD_DIM) {
            for pair in 0..HEAD_DIM / 2 {
                let frequency = 10_000f64.powf(-2.0 * pair as f64 / HEAD_DIM as f64)
                    / factors.map_or(1.0, |factors| factors[pair])
                    / f64::from(self.tiny.rope_scale);
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                let (a, b) = if self.tiny.architecture == "llama" {
                    (2 * pair, 2 * pair + 1)
                } else {
                    (pair, pair + HEAD_DIM / 2)
                };
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
    }

    /// The logits after each token.
    fn logits(&self, tokens: &[u32]) -> Vec<Vector> {
        let mut cache: Vec<(Vec<Vector>, Vec<Vector>)> =
            vec![Default::default(); self.tiny.n_layers];
        let mut logits = Vec::new();
        for (position, &token) in tokens.iter().enumerate() {
            let width = N_HEADS * HEAD_DIM;
            let mut x =
                self.tensors["token_embd.weight"][token as usize * width..][..width].to_vec();
            for (layer, (keys, values)) in cache.iter_mut().enumerate() {
                let name = |part: &str| format!("blk.{layer}.{part}");
                let h = self.norm(&name("attn_norm"), &x);
                let (mut q, mut k) = (
                    self.linear(&name("attn_q"), &h),
                    self.linear(&name("attn_k"), &h),
                );
                self.rope(&mut q, position);
                self.rope(&mut k, position);
                keys.push(k);
                values.push(self.linear(&name("attn_v"), &h));
                add(
                    &mut x,
                    &self.linear(&name("attn_output"), &attend(&q, keys, values)),
                );
                let h = self.norm(&name("ffn_norm"), &x);
                let (gate, up) = (
                    self.linear(&name("ffn_gate"), &h),
                    self.linear(&name("ffn_up"), &h),
                );
                let activated: Vector = gate
                    .iter()
                    .zip(&up)
                    .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                    .collect();
                add(&mut x, &self.linear(&name("ffn_down"), &activated));
            }
            let output = if self.tiny.tied {
                "token_embd"
            } else {
                "output"
            };
            logits.push(self.linear(output, &self.norm("output_norm", &x)));
        }
        logits
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// One query position over all keys so far.
fn attend(q: &[f64], keys: &[Vector], values: &[Vector]) -> Vector {
    let mut out = Vec::new();
    for (head, q) in q.chunks_exact(HEAD_DIM).enumerate() {
        let at = head / (N_HEADS / N_KV_HEADS) * HEAD_DIM;
        let scores = keys.iter().map(|k| {
            q.iter().zip(&k[at..]).map(|(q, k)| q * k).sum::<f64>() / (HEAD_DIM as f64).sqrt()
        });
        let shares: Vector = scores.map(f64::exp).collect();
        let total: f64 = shares.iter().sum();
        for dim in at..at + HEAD_DIM {
            out.push(
                shares
                    .iter()
                    .zip(values)
                    .map(|(share, v)| share / total * v[dim])
                    .sum(),
            );
        }
    }
    out
}

fn logprob(logits: &[f64], id: u32) -> f64 {
    logits[id as usize] - logits.iter().map(|logit| logit.exp()).sum::<f64>().ln()
}

#[tokio::test]
async fn the_engine_agrees_with_the_papers() {
    let stretched = Tiny {
        rope_scale: 4,
        rope_factors: false,
        ..Tiny::LLAMA
    };
    for tiny in [Tiny::LLAMA, Tiny::QWEN, stretched] {
        let file = write(tiny);
        let tokens = prompt(4, 70);
        let expected = Naive::new(tiny, &file).logits(&tokens);
        for device in [Device::reference(), config().device] {
            let engine = start(EngineConfig { device, ..config() });
            attach(&engine, "m", &file).await;
            let mut request = request("m", tokens.clone(), 1);
            request.output = OutputOptions {
                logprobs: Some(0),
                prompt_logprobs: Some(0),
            };
            let completion = complete(&engine, request).await.expect("an answer");
            let scored = completion.prompt_logprobs[1..]
                .iter()
                .map(|token| (token.id, token.logprob.expect("scored")));
            let said = completion
                .tokens
                .iter()
                .map(|token| (token.id, token.logprob.expect("scored")));
            let found: Vec<(u32, f32)> = scored.chain(said).collect();
            assert_eq!(found.len(), tokens.len());
            for (position, ((id, found), logits)) in found.into_iter().zip(&expected).enumerate() {
                // f32 arithmetic over sums of at most 48 terms and three layers.
                let expected = logprob(logits, id);
                assert!(
                    (f64::from(found) - expected).abs() < 1e-4,
                    "{} at {position}: {found} instead of {expected}",
                    tiny.architecture
                );
            }
        }
    }
}
