//! How published vocabularies cut text into words, as data.
//!
//! A definition is what the vocabulary's own `tokenizer.json` says, under the names that GGUF files give it in `tokenizer.ggml.pre`. A new vocabulary is a new row. `\s+(?!\S)|\s+`, with which most of the
//! published expressions end, is written `\s+` and a [`LastSpace`]: without a look-ahead every expression can be matched in linear time.

/// One way to cut text into words.
#[derive(Debug)]
pub(crate) struct Definition {
    /// Values of `tokenizer.ggml.pre`.
    pub(crate) names: &'static [&'static str],
    /// Applied one after the other, each to every piece that the one before it made.
    pub(crate) stages: &'static [Stage],
    /// A word that is a token is that token, whatever the merges would make of it.
    pub(crate) ignore_merges: bool,
    /// Whether the beginning token is added where the file does not say.
    pub(crate) add_bos: bool,
}

/// One cut.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Text is nothing but matches of `pattern`, one behind the other.
    Words {
        pattern: &'static str,
        last_space: LastSpace,
    },
    /// Matches of the pattern are cut out of the text; what lies between them are pieces too.
    Isolate(&'static str),
}

/// What becomes of the last character of white space before a visible one. It is left to the next match if its own match has another character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastSpace {
    /// Always.
    Leaves,
    /// If it is no line end; such patterns match line ends on their own.
    LeavesUnlessLineEnd,
}

/// GPT-2's words: English contractions; letters, digits or signs, each with one space before them; white space.
const GPT2: Stage = Stage::Words {
    pattern: r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
    last_space: LastSpace::Leaves,
};

/// Words of the `cl100k` kind: contractions in any case, one sign may lead a word, line ends on their own; digits in groups of up to three.
const DIGITS_BY_THREE: Stage = Stage::Words {
    pattern: r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    last_space: LastSpace::LeavesUnlessLineEnd,
};

/// The same with every digit on its own.
const DIGITS_ONE_BY_ONE: Stage = Stage::Words {
    pattern: r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    last_space: LastSpace::LeavesUnlessLineEnd,
};

/// The row for files that name none, or `default`.
pub(crate) const DEFAULT: Definition = Definition {
    names: &["default"],
    stages: &[
        Stage::Isolate(r"[\p{P}$+<=>^~|]+"),
        GPT2,
        Stage::Isolate(r"\p{N}+"),
        Stage::Isolate(r"[0-9][0-9][0-9]"),
    ],
    ignore_merges: false,
    add_bos: false,
};

pub(crate) const DEFINITIONS: [Definition; 8] = [
    DEFAULT,
    Definition {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        stages: &[DIGITS_BY_THREE],
        ignore_merges: true,
        add_bos: true,
    },
    Definition {
        names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"],
        stages: &[DIGITS_BY_THREE],
        ignore_merges: false,
        add_bos: false,
    },
    Definition {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "megrez",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        stages: &[DIGITS_ONE_BY_ONE],
        ignore_merges: false,
        add_bos: false,
    },
    Definition {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "exaone4",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
        ],
        stages: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Definition {
        names: &[
            "starcoder",
            "refact",
            "command-r",
            "smollm",
            "codeshell",
            "exaone",
            "minerva-7b",
        ],
        stages: &[Stage::Isolate(r"\p{N}"), GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Definition {
        names: &["falcon"],
        stages: &[
            Stage::Isolate(r"[\p{P}$+<=>^~|`]+"),
            GPT2,
            Stage::Isolate(r"[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
        add_bos: false,
    },
    Definition {
        names: &["deepseek-coder"],
        stages: &[
            Stage::Isolate(r"[\r\n]"),
            Stage::Isolate(r"\s?\p{L}+"),
            Stage::Isolate(r"\s?\p{P}+"),
            Stage::Isolate(r"[\u{0800}-\u{9fa5}\u{ac00}-\u{d7ff}]+"),
            Stage::Isolate(r"\p{N}"),
        ],
        ignore_merges: false,
        add_bos: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<&str> = DEFINITIONS
            .iter()
            .flat_map(|definition| definition.names)
            .copied()
            .collect();
        let n_names = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_names);
    }
}
