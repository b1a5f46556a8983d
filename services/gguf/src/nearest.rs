use crate::error::shown;

/// A tensor that the directory does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "tensor '{name}' not found; the directory has {tensor_count} tensors{}",
    suggestion(nearest)
)]
pub struct MissingTensor {
    /// What was asked for.
    pub name: String,
    /// How many tensors the directory has.
    pub tensor_count: usize,
    /// Names that are spelled almost alike, the nearest first; at most three.
    pub nearest: Vec<String>,
}

const SUGGESTION_COUNT_MAX: usize = 3;

/// Longer names are not compared: the work is the product of two lengths, and names come from the file.
const COMPARED_BYTES_MAX: usize = 128;

impl MissingTensor {
    pub(crate) fn new<'a>(
        name: &str,
        known: impl ExactSizeIterator<Item = &'a str>,
    ) -> MissingTensor {
        let tensor_count = known.len();
        let mut scored: Vec<(usize, &str)> = known
            .filter_map(|other| Some((distance(name, other)?, other)))
            .collect();
        scored.sort_by_key(|&(distance, _)| distance);
        let nearest = scored
            .iter()
            .take(SUGGESTION_COUNT_MAX)
            .map(|&(_, other)| other.to_owned())
            .collect();
        MissingTensor {
            name: name.to_owned(),
            tensor_count,
            nearest,
        }
    }
}

fn suggestion(nearest: &[String]) -> String {
    let quoted: Vec<String> = nearest
        .iter()
        .map(|name| format!("'{}'", shown(name)))
        .collect();
    if quoted.is_empty() {
        String::new()
    } else {
        format!(", nearest: {}", quoted.join(", "))
    }
}

/// Insertions, deletions and replacements of single bytes that lead from `a` to `b`; `None` if they have too little in common to be worth a suggestion. Source: Wagner and Fischer, 1974.
fn distance(a: &str, b: &str) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let worth = a.len().max(b.len()) / 3;
    if a.len().max(b.len()) > COMPARED_BYTES_MAX || a.len().abs_diff(b.len()) > worth {
        return None;
    }
    // Row i of the table holds the distances from the first i bytes of `a` to every prefix of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    Some(row[b.len()]).filter(|&distance| distance <= worth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let check = |a: &str, b: &str, expected: Option<usize>| {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        };
        check("attn_q.weight", "attn_q.weight", Some(0));
        check("attn_q.weight", "attn_k.weight", Some(1));
        check("blk.0.attn_q", "blk.0.attn_qkv", Some(2));
        check("blk.10.attn_q", "blk.1.attn_q", Some(1));
        check("output.weight", "token_embd.weight", None);
        check("abc", "xyz", None);
        check("", "", Some(0));
        check("a", &"a".repeat(COMPARED_BYTES_MAX + 1), None);
    }

    #[test]
    fn message_lists_what_is_near() {
        let known = [
            "token_embd.weight",
            "blk.0.attn_k.weight",
            "blk.0.attn_qkv.weight",
            "blk.0.attn_v.weight",
            "blk.1.attn_k.weight",
        ];
        let check = |name: &str, expected: &str| {
            assert_eq!(
                MissingTensor::new(name, known.iter().copied()).to_string(),
                expected
            )
        };
        check(
            "blk.0.attn_q.weight",
            "tensor 'blk.0.attn_q.weight' not found; the directory has 5 tensors, nearest: 'blk.0.attn_k.weight', 'blk.0.attn_v.weight', 'blk.0.attn_qkv.weight'",
        );
        check(
            "rope_freqs",
            "tensor 'rope_freqs' not found; the directory has 5 tensors",
        );
    }
}
