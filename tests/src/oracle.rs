//! Independent expectations, found by `HEARTH_ORACLE`: a folder with a manifest, GGUF files and the logits that a float32 implementation of another project gives for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// The folder with the manifest in it.
#[derive(Debug)]
pub struct Oracle {
    /// The folder.
    pub root: PathBuf,
    /// The manifest's cases of logits and of malformed files.
    pub cases: Vec<Case>,
    /// The manifest's unpacked blocks.
    pub unpacked: Vec<Unpacked>,
}

/// One case of the manifest, with the fields of every kind of case.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// Such as `models/llama`.
    pub id: String,
    /// Such as `logits`.
    pub kind: String,
    /// The GGUF file, below the root.
    #[serde(default)]
    pub file: String,
    /// The expected tensors, below the root.
    #[serde(default)]
    pub expected: String,
    /// Expected tensors of another defensible reading of the file, below the root.
    pub expected_alt: Option<String>,
    /// `general.architecture`.
    #[serde(default)]
    pub arch: String,
    /// Vocabulary size.
    #[serde(default)]
    pub n_vocab: usize,
    /// Whether it is a mixture of experts.
    #[serde(default)]
    pub moe: bool,
    /// The class that the file's own types call for.
    #[serde(default)]
    pub default_class: String,
    /// What each class demands.
    #[serde(default)]
    pub tolerance: BTreeMap<String, Tolerance>,
    /// Whether the first prompt has a text, and the model's own tokenizer makes the prompt's tokens of it.
    #[serde(default)]
    pub p0_text_tokenises_to_p0_tokens: bool,
    /// Prompts by name.
    #[serde(default)]
    pub prompts: BTreeMap<String, Prompt>,
    /// The list of files of a `malformed` case, below the root.
    #[serde(default)]
    pub cases: String,
    /// Its length.
    #[serde(default)]
    pub n_cases: usize,
}

/// Blocks of every tensor type and their values: the manifest's case of kind `dequant`.
#[derive(Debug, Clone, Deserialize)]
pub struct Unpacked {
    /// The tensors, below the root: for each type `TYPE.raw` and `TYPE.f32`.
    pub file: String,
    /// What it holds.
    pub types: Vec<Blocks>,
}

/// Blocks of one tensor type whose values are known.
#[derive(Debug, Clone, Deserialize)]
pub struct Blocks {
    /// Name of the tensor type.
    #[serde(rename = "type")]
    pub tensor_type: String,
    /// Its id.
    pub type_id: u32,
    /// How many values there are.
    pub elements: usize,
}

/// What a tolerance class demands.
#[derive(Debug, Clone, Deserialize)]
pub struct Tolerance {
    /// Largest difference of a logit.
    pub max_abs: f64,
    /// Largest mean difference.
    pub mean_abs: Option<f64>,
    /// Largest mean Kullback-Leibler divergence, in nats.
    pub mean_kl: Option<f64>,
    /// Smallest share of positions whose most likely token agrees.
    pub top1_rate: Option<f64>,
    /// `"all"`, or the names of the prompts that are held to the figures above.
    pub prompts: serde_json::Value,
}

impl Tolerance {
    /// Whether a prompt is held to the maxima, and not to the median alone.
    #[must_use]
    pub fn is_strict_for(&self, prompt: &str) -> bool {
        match &self.prompts {
            serde_json::Value::Array(names) => names.iter().any(|name| name == prompt),
            _ => true,
        }
    }
}

/// A prompt.
#[derive(Debug, Clone, Deserialize)]
pub struct Prompt {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The text that tokenises to them, where there is one.
    pub text: Option<String>,
    /// The expected greedy continuation, where there is one.
    pub greedy: Option<Vec<u32>>,
}

impl Oracle {
    /// Opens the folder that `HEARTH_ORACLE` names.
    ///
    /// # Errors
    /// If the variable is not set, or the manifest cannot be read.
    pub fn from_env() -> Result<Oracle> {
        let root = std::env::var_os("HEARTH_ORACLE")
            .context("HEARTH_ORACLE names the folder of references; it is not set")?;
        let root = PathBuf::from(root)
            .canonicalize()
            .context("HEARTH_ORACLE")?;
        let manifest = ["manifest.json", "manifest.open.json"]
            .map(|name| root.join(name))
            .into_iter()
            .find(|path| path.is_file());
        let manifest = manifest.with_context(|| format!("{} holds no manifest", root.display()))?;
        #[derive(Deserialize)]
        struct Manifest {
            n_cases: usize,
            cases: Vec<serde_json::Value>,
        }
        let manifest: Manifest = serde_json::from_slice(&std::fs::read(manifest)?)?;
        ensure!(
            manifest.cases.len() == manifest.n_cases,
            "the manifest announces {} cases and holds {}",
            manifest.n_cases,
            manifest.cases.len()
        );
        // Kinds of case have fields of their own, and readers; ours are these.
        let of_kinds = |kinds: &[&str]| -> Vec<serde_json::Value> {
            let kind = |case: &serde_json::Value| -> Option<bool> {
                Some(kinds.contains(&case.get("kind")?.as_str()?))
            };
            let cases = manifest.cases.iter();
            cases
                .filter(|case| kind(case).unwrap_or(false))
                .cloned()
                .collect()
        };
        let cases: Result<_, _> = of_kinds(&["logits", "malformed"])
            .into_iter()
            .map(serde_json::from_value)
            .collect();
        let unpacked: Result<_, _> = of_kinds(&["dequant"])
            .into_iter()
            .map(serde_json::from_value)
            .collect();
        Ok(Oracle {
            root,
            cases: cases?,
            unpacked: unpacked?,
        })
    }

    /// The expected tensors of a case, those of each defensible reading of its file.
    ///
    /// # Errors
    /// If a file is missing or malformed.
    pub fn expected(&self, case: &Case) -> Result<Vec<Expected>> {
        let readings = std::iter::once(&case.expected).chain(&case.expected_alt);
        readings
            .map(|path| Expected::read(&self.root.join(path)))
            .collect()
    }
}

/// The tensors of a safetensors file.
#[derive(Debug, Clone)]
pub struct Expected {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Expected {
    /// Reads a safetensors file of F32, I32 and U8 tensors. Format: an 8-byte little-endian length, a JSON header of that length, then the data.
    ///
    /// # Errors
    /// If the file cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Expected> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let (len, rest) = bytes.split_first_chunk::<8>().context("no header")?;
        let header_len = usize::try_from(u64::from_le_bytes(*len))?;
        ensure!(
            header_len <= rest.len(),
            "the header is longer than the file"
        );
        let (header, data) = rest.split_at(header_len);
        let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)?;
        let mut tensors = BTreeMap::new();
        for (name, entry) in header
            .into_iter()
            .filter(|(name, _)| name != "__metadata__")
        {
            #[derive(Deserialize)]
            struct Entry {
                dtype: String,
                shape: Vec<usize>,
                data_offsets: (usize, usize),
            }
            let entry: Entry = serde_json::from_value(entry)?;
            let raw = data
                .get(entry.data_offsets.0..entry.data_offsets.1)
                .context("a tensor leaves the file")?;
            let words = raw.as_chunks::<4>().0.iter();
            let values: Vec<f32> = match entry.dtype.as_str() {
                "F32" => words.map(|word| f32::from_le_bytes(*word)).collect(),
                "I32" => words.map(|word| i32::from_le_bytes(*word) as f32).collect(),
                "U8" => raw.iter().map(|byte| f32::from(*byte)).collect(),
                other => bail!("{name}: type {other} is not known here"),
            };
            ensure!(
                values.len() == entry.shape.iter().product::<usize>(),
                "{name}: shape and length disagree"
            );
            tensors.insert(name, (entry.shape, values));
        }
        Ok(Expected { tensors })
    }

    /// A tensor's values.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn values(&self, name: &str) -> Result<&[f32]> {
        self.tensors
            .get(name)
            .map(|(_, values)| values.as_slice())
            .with_context(|| format!("no tensor {name}"))
    }

    /// A tensor's values, to alter them.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn values_mut(&mut self, name: &str) -> Result<&mut [f32]> {
        self.tensors
            .get_mut(name)
            .map(|(_, values)| values.as_mut_slice())
            .with_context(|| format!("no tensor {name}"))
    }
}
