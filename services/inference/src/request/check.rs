//! Collecting everything that is wrong with a request, so that a caller mends it in one go.

use engine::MAX_TOP_LOGPROBS;

use crate::error::{Error, Violation};

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Check {
    violations: Vec<Violation>,
    not_served: Option<&'static str>,
}

// === impl Check ===

impl Check {
    /// Notes a violation of `field` unless `holds`.
    pub(super) fn that(&mut self, holds: bool, field: &str, reason: &str) {
        if !holds {
            self.violations.push(Violation {
                field: field.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }

    /// The same for one item of a list, named `list[index]` and `below`.
    pub(super) fn item(
        &mut self,
        holds: bool,
        list: &str,
        index: usize,
        below: &str,
        reason: &str,
    ) {
        if !holds {
            self.that(false, &format!("{list}[{index}]{below}"), reason);
        }
    }

    /// Notes that `field` asks for what is not served, unless `neutral`.
    pub(super) fn served(&mut self, neutral: bool, field: &'static str) {
        if !neutral && self.not_served.is_none() {
            self.not_served = Some(field);
        }
    }

    /// Passes a top-n count through.
    pub(super) fn top_n(&mut self, count: Option<u32>, field: &str) -> Option<u32> {
        self.that(
            count.is_none_or(|n| n <= MAX_TOP_LOGPROBS),
            field,
            "must be at most 20",
        );
        count
    }

    /// # Errors
    /// What was found: violations before fields that are not served, since only the caller can mend them.
    pub(super) fn finish(self) -> Result<(), Error> {
        if !self.violations.is_empty() {
            return Err(Error::Invalid {
                violations: self.violations,
            });
        }
        match self.not_served {
            Some(field) => Err(Error::NotServed { field }),
            None => Ok(()),
        }
    }
}
