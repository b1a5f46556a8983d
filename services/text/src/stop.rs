/// Finds stop strings in text that comes in pieces.
///
/// The stop string that is complete first wins; of several that end at the same place the longest, then the first given. What is found, and what text comes out before it, does not depend on how the text was cut.
/// Text is held back only while it may be the beginning of a stop string.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text that may begin a stop string: as long as the longest beginning that any has matched.
    held: String,
    matched: Option<usize>,
}

/// What a piece of text led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Text that no stop string can take back.
    pub emit: String,
    /// Index of the stop string that was found. It and what follows it are dropped, also in later steps.
    pub matched: Option<usize>,
}

/// One stop string and how much of it the text ends with (Knuth, Morris and Pratt's automaton).
#[derive(Debug, Clone)]
struct Stop {
    /// Place in the caller's list.
    index: usize,
    bytes: Vec<u8>,
    /// Of each beginning of `bytes`, from the one of one byte: the length of the longest shorter beginning that it ends with.
    fallbacks: Vec<usize>,
    matched_len: usize,
}

impl StopMatcher {
    /// Empty strings are never found. Each byte of text costs time for every stop string: bound their number.
    pub fn new(stops: Vec<String>) -> StopMatcher {
        let stops = stops
            .into_iter()
            .enumerate()
            .filter(|(_, stop)| !stop.is_empty())
            .map(|(index, stop)| Stop::new(index, stop.into_bytes()))
            .collect();
        StopMatcher {
            stops,
            held: String::new(),
            matched: None,
        }
    }

    /// Takes the next piece of text. After a match nothing more is emitted and `matched` stays.
    pub fn push(&mut self, text: &str) -> StopStep {
        if self.matched.is_some() {
            return StopStep {
                emit: String::new(),
                matched: self.matched,
            };
        }
        let held_len = self.held.len();
        self.held.push_str(text);
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            if let Some(found) = self.step(byte) {
                let end = held_len + at + 1;
                self.matched = Some(found.index);
                self.held.truncate(end - found.len);
                return StopStep {
                    emit: std::mem::take(&mut self.held),
                    matched: self.matched,
                };
            }
        }
        // A beginning of a stop string begins with a character, so the cut is between characters.
        let kept = self
            .stops
            .iter()
            .map(|stop| stop.matched_len)
            .max()
            .unwrap_or(0);
        let emit_len = self.held.len() - kept;
        let rest = self.held.split_off(emit_len);
        StopStep {
            emit: std::mem::replace(&mut self.held, rest),
            matched: None,
        }
    }

    /// The text that was held back, now that no more comes. Empty after a match.
    pub fn finish(&mut self) -> String {
        for stop in &mut self.stops {
            stop.matched_len = 0;
        }
        std::mem::take(&mut self.held)
    }

    /// Moves all automata on by one byte.
    fn step(&mut self, byte: u8) -> Option<Found> {
        let mut found: Option<Found> = None;
        for stop in &mut self.stops {
            if stop.step(byte)
                && found
                    .as_ref()
                    .is_none_or(|found| found.len < stop.bytes.len())
            {
                found = Some(Found {
                    index: stop.index,
                    len: stop.bytes.len(),
                });
            }
        }
        found
    }
}

/// A stop string that is complete.
struct Found {
    index: usize,
    len: usize,
}

impl Stop {
    fn new(index: usize, bytes: Vec<u8>) -> Stop {
        let mut fallbacks = vec![0; bytes.len()];
        for end in 1..bytes.len() {
            let mut len = fallbacks[end - 1];
            while len > 0 && bytes[len] != bytes[end] {
                len = fallbacks[len - 1];
            }
            fallbacks[end] = len + usize::from(bytes[len] == bytes[end]);
        }
        Stop {
            index,
            bytes,
            fallbacks,
            matched_len: 0,
        }
    }

    /// Whether `byte` completes the string. It must not be called again then.
    fn step(&mut self, byte: u8) -> bool {
        while self.matched_len > 0 && self.bytes[self.matched_len] != byte {
            self.matched_len = self.fallbacks[self.matched_len - 1];
        }
        self.matched_len += usize::from(self.bytes[self.matched_len] == byte);
        self.matched_len == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect())
    }

    fn step(emit: &str, matched: Option<usize>) -> StopStep {
        StopStep {
            emit: emit.to_owned(),
            matched,
        }
    }

    #[test]
    fn holds_back_what_may_begin_a_stop() {
        let mut matcher = matcher(&["", "\nUser:", "###"]);
        assert_eq!(matcher.push("Hi #"), step("Hi ", None));
        assert_eq!(matcher.push("# x\nUs"), step("## x", None));
        assert_eq!(matcher.push("er"), step("", None));
        assert_eq!(matcher.push(": more"), step("", Some(1)));
        assert_eq!(matcher.push("x"), step("", Some(1)));
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn gives_back_what_was_none_at_the_end() {
        let mut matcher = matcher(&["END"]);
        assert_eq!(matcher.push("the EN"), step("the ", None));
        assert_eq!(matcher.finish(), "EN");
        assert_eq!(matcher.finish(), "");
        assert_eq!(matcher.push("D."), step("D.", None));
    }

    #[test]
    fn the_first_to_be_complete_wins() {
        let check = |stops: &[&str], text: &str, expected: StopStep| {
            assert_eq!(matcher(stops).push(text), expected, "{stops:?}")
        };
        check(&["abcd", "c"], "xabcd", step("xab", Some(1)));
        check(&["c", "bc"], "abc", step("a", Some(1)));
        check(&["x", "x"], "ax", step("a", Some(0)));
        check(&[], "abc", step("abc", None));
    }

    #[test]
    fn characters_stay_whole() {
        let mut matcher = matcher(&["日本"]);
        assert_eq!(matcher.push("a日"), step("a", None));
        assert_eq!(matcher.push("月日"), step("日月", None));
        assert_eq!(matcher.push("本x"), step("", Some(0)));
    }

    /// The text up to the stop string that ends first, and its index; the longest, then the first given, of those that end there.
    fn naive(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in 1..=text.len() {
            let ends_here = stops.iter().enumerate().filter(|(_, stop)| {
                !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes())
            });
            if let Some((index, stop)) =
                ends_here.max_by_key(|(index, stop)| (stop.len(), std::cmp::Reverse(*index)))
            {
                return (text[..end - stop.len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn equals_a_search_of_the_whole_text(
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            chunks in prop::collection::vec("[abé]{0,5}", 0..10),
        ) {
            let text = chunks.concat();
            let mut matcher = StopMatcher::new(stops.clone());
            let (mut emitted, mut matched) = (String::new(), None);
            for chunk in &chunks {
                let StopStep { emit, matched: now } = matcher.push(chunk);
                emitted.push_str(&emit);
                matched = now;
                // What is held back could still become a stop string.
                prop_assert!(matcher.held.is_empty() || stops.iter().any(|stop| stop.starts_with(&matcher.held)));
            }
            emitted.push_str(&matcher.finish());
            prop_assert_eq!((emitted, matched), naive(&stops, &text));
        }
    }
}
