use crate::table::{Key, Table};
use crate::vocabulary::Vocabulary;

/// Finds tokens by their bytes.
#[derive(Debug, Clone)]
pub(crate) struct Lookup(Table);

impl Lookup {
    /// Finds the tokens of `vocabulary` that `belongs` picks. Of several with the same bytes the last one is found.
    pub(crate) fn of(vocabulary: &Vocabulary, belongs: impl Fn(u32) -> bool) -> Lookup {
        let ids = (0..vocabulary.len()).rev().filter(|&id| belongs(id));
        Lookup(Table::of(vocabulary.len() as usize, ids, |id| {
            key_of(vocabulary, id)
        }))
    }

    /// The token that stands for `bytes`. `vocabulary` is that of [`Lookup::of`].
    pub(crate) fn find(&self, vocabulary: &Vocabulary, bytes: &[u8]) -> Option<u32> {
        self.0
            .find(Key { bytes, beside: 0 }, |id| key_of(vocabulary, id))
    }
}

fn key_of(vocabulary: &Vocabulary, id: u32) -> Key<'_> {
    Key {
        bytes: vocabulary
            .piece(id)
            .expect("ids of this vocabulary were put in"),
        beside: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Kind;

    #[test]
    fn the_last_of_equals_is_found() {
        let mut vocabulary = Vocabulary::with_capacity(5, 100).unwrap();
        for text in ["a", "b", "a", "", "c"] {
            vocabulary.push(Kind::Normal, |out| out.extend_from_slice(text.as_bytes()));
        }
        let lookup = Lookup::of(&vocabulary, |id| id != 4);
        let find = |text: &str| lookup.find(&vocabulary, text.as_bytes());
        assert_eq!(
            [find("a"), find("b"), find(""), find("c"), find("d")],
            [Some(2), Some(1), Some(3), None, None]
        );
    }
}
