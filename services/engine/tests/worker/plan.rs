//! Plans are built from headers alone.

use std::sync::Arc;

use engine::config::ModelConfig;
use engine::plan::{Layer, Plan, PlanError};
use engine::{AttachRequest, Bytes, SourceError, WeightSource};
use gguf::write::Writer;
use gguf::{Directory, ExtentId, TensorType};
use weights::Fetched;

use crate::model::{Tiny, write};
use crate::support::{config, start};

/// Weights that must not be looked at.
#[derive(Debug)]
struct Untouchable(Arc<Directory>);

impl WeightSource for Untouchable {
    fn directory(&self) -> &Arc<Directory> {
        &self.0
    }

    fn fetch(&self, extent: ExtentId) -> Result<Fetched, SourceError> {
        panic!("extent {} was fetched", extent.0)
    }

    fn view(self: Arc<Self>, extent: ExtentId) -> Bytes {
        panic!("extent {} was looked at", extent.0)
    }

    fn evict(&self, extent: ExtentId) {
        panic!("extent {} was evicted", extent.0)
    }

    fn poisoned(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn attaching_reads_no_weight() {
    for tiny in [Tiny::LLAMA, Tiny::QWEN, Tiny::EXPERTS, Tiny::GEMMA] {
        let file = write(tiny);
        let engine = start(config());
        let request = AttachRequest {
            id: "m".to_owned(),
            weights: Arc::new(Untouchable(file.directory.clone())),
            tokenizer: file.tokenizer.clone(),
            pin: false,
        };
        let report = engine.attach(request).await.expect("a sound model");
        assert_eq!(report.n_extents as usize, file.directory.extents().len());
        assert_eq!(report.tensor_bytes, file.directory.tensor_bytes());
        engine.unload("m", false).await.expect("attached");
    }
}

#[test]
fn layers_come_in_execution_order() {
    let file = write(Tiny::QWEN);
    let model = ModelConfig::from_directory(&file.directory).expect("sound metadata");
    let plan = Plan::build(&model, &file.directory, |_| true).expect("sound tensors");
    let names = |index: usize| {
        let mut names = Vec::new();
        plan.layers[index].for_each(|tensor| names.push(tensor.name.to_string()));
        names
    };
    assert_eq!(plan.layers.len(), 4);
    assert_eq!(names(0), ["token_embd.weight"]);
    assert!(matches!(plan.layers[1], Layer::Block(_)));
    assert_eq!(
        names(2)[..3],
        [
            "blk.1.attn_norm.weight",
            "blk.1.attn_q.weight",
            "blk.1.attn_q.bias"
        ]
    );
    assert_eq!(
        names(3),
        ["output_norm.weight", "token_embd.weight"],
        "a tied output is the embedding"
    );
    assert_eq!(plan.extents[0].len(), 1);
    assert_eq!(plan.extents[1].len(), 12);
    assert!(
        plan.extents.iter().all(|ids| ids.is_sorted()),
        "the file was written in this order"
    );
    assert_eq!(plan.n_extents(), file.directory.extents().len());
}

/// Name, dimensions and type of a tensor.
type Named = (String, Vec<u64>, TensorType);

/// Builds a plan of the tiny llama after `change` has been at its tensors.
fn plan_of(
    change: impl Fn(&mut Vec<Named>),
    supports: impl Fn(TensorType) -> bool,
) -> Result<Plan, PlanError> {
    let file = write(Tiny::LLAMA);
    let tensors = file.directory.tensors().iter();
    let mut tensors: Vec<_> = tensors
        .map(|info| {
            (
                info.name.clone(),
                info.shape.dims().to_vec(),
                info.tensor_type,
            )
        })
        .collect();
    change(&mut tensors);
    let mut writer = Writer::new();
    for (key, value) in file.directory.metadata().iter() {
        writer = writer.metadata(key, value.clone());
    }
    for (name, dims, tensor_type) in &tensors {
        writer = writer.tensor(name, dims, *tensor_type);
    }
    let directory = writer.finish().expect("a header").directory;
    Plan::build(
        &ModelConfig::from_directory(&directory).expect("sound metadata"),
        &directory,
        supports,
    )
}

#[test]
fn tensors_that_do_not_make_up_the_model_are_named() {
    let check = |change: &dyn Fn(&mut Vec<Named>), expected: &str| {
        let error = plan_of(change, |tensor_type| tensor_type == TensorType::F32)
            .expect_err(expected)
            .to_string();
        assert!(
            error.contains(expected),
            "'{error}' does not say '{expected}'"
        );
    };
    let find = |tensors: &mut Vec<Named>, name: &str| {
        tensors
            .iter()
            .position(|(known, ..)| known == name)
            .expect("there")
    };
    check(
        &|t| {
            let at = find(t, "blk.0.attn_k.weight");
            t.remove(at);
        },
        "tensor 'blk.0.attn_k.weight' not found; the directory has 30 tensors, nearest: 'blk.0.attn_q.weight'",
    );
    check(
        &|t| {
            let at = find(t, "blk.2.ffn_up.weight");
            t[at].1 = vec![32, 49];
        },
        "tensor 'blk.2.ffn_up.weight' has shape [32, 49], expected [32, 48]",
    );
    check(
        &|t| {
            let at = find(t, "token_embd.weight");
            t[at].1 = vec![32, 290];
        },
        "token_embd.weight",
    );
    check(
        &|t| {
            let at = find(t, "output.weight");
            t[at].2 = TensorType::F16;
        },
        "tensor 'output.weight' has type F16",
    );
    check(
        &|t| {
            let at = find(t, "blk.0.attn_norm.weight");
            t[at].2 = TensorType::F16;
        },
        "tensor 'blk.0.attn_norm.weight' has type F16",
    );
    check(
        &|t| {
            t.push((
                "blk.0.attn_q_norm.weight".to_owned(),
                vec![8],
                TensorType::F32,
            ))
        },
        "tensor 'blk.0.attn_q_norm.weight' is not supported: no layer of architecture 'llama' uses it",
    );
}

#[test]
fn what_means_the_same_is_taken() {
    let tied = plan_of(
        |tensors| tensors.retain(|(name, ..)| name != "output.weight"),
        |_| true,
    )
    .expect("a tied output");
    assert_eq!(tied.extents[0][0], tied.extents[4][0]);
    let flat = plan_of(
        |tensors| {
            let norm = tensors
                .iter_mut()
                .find(|(name, ..)| name == "output_norm.weight")
                .expect("there");
            norm.1 = vec![32, 1];
        },
        |_| true,
    );
    flat.expect("a norm of one column");
}
