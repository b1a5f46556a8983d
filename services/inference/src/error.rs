//! Why a call fails. What the caller is told of it is decided in [`crate::status`].

use std::{fmt, sync::Arc};

use engine::{AttachError, EngineError};
use text::{TokenizerError, chat::ChatError};
use weights::handoff::AcceptError;

/// Why a call fails. Cheap to clone: one failed attach ends every request that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Fields are out of range.
    #[error("invalid request: {}", Violations(violations))]
    Invalid {
        /// Each field with what is wrong; never empty.
        violations: Vec<Violation>,
    },
    /// A field asks for what is not served.
    #[error("{field} is not served")]
    NotServed {
        /// Path of the field.
        field: &'static str,
    },
    /// The daemon publishes no such model, and none is attached.
    #[error("no model '{model}'; known: {}", Listed(known))]
    UnknownModel {
        /// The id that was asked for.
        model: String,
        /// The ids there are.
        known: Vec<String>,
    },
    /// The model is not attached, and the call is about attached ones.
    #[error("model '{model}' is not attached; attached: {}", Listed(attached))]
    NotAttached {
        /// The id that was asked for.
        model: String,
        /// The ids of the attached models.
        attached: Vec<String>,
    },
    /// The model is not attached, and requests may not attach it.
    #[error(
        "model '{model}' is not attached and attaching on demand is switched off; use LoadModel"
    )]
    AutoAttachOff {
        /// The id that was asked for.
        model: String,
    },
    /// The model's file changed; nothing computed from it may leave.
    #[error(
        "model '{model}': its file changed or was truncated while in use; unload it and load it again"
    )]
    Degraded {
        /// The model.
        model: String,
    },
    /// The service is about to end.
    #[error("the service is shutting down")]
    Draining,
    /// As many calls are under way as may be.
    #[error("{limit} requests are under way or wait, which is the limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The request message is larger than allowed.
    #[error("the request message is larger than {limit_bytes} bytes")]
    MessageTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The daemon did not answer, or said no.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The hand-off failed.
    #[error("taking over model '{model}' from the loader daemon")]
    Accept {
        /// The model.
        model: String,
        /// Why.
        #[source]
        source: Arc<AcceptError>,
    },
    /// The file's vocabulary cannot be used.
    #[error("the tokenizer of model '{model}'")]
    Tokenizer {
        /// The model.
        model: String,
        /// Why.
        #[source]
        source: Arc<TokenizerError>,
    },
    /// The model's chat template makes no prompt of the conversation.
    #[error("{source}")]
    Chat {
        /// The model.
        model: String,
        /// Why.
        #[source]
        source: ChatError,
    },
    /// The engine cannot run the model.
    #[error("attaching model '{model}'")]
    Attach {
        /// The model.
        model: String,
        /// Why.
        #[source]
        source: Arc<AttachError>,
    },
    /// The engine ended the request.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A task of ours died: a bug.
    #[error("{what} ended without an answer")]
    Lost {
        /// What it was doing.
        what: &'static str,
    },
}

/// What the loader daemon answered instead of what was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// Nobody answers, or whoever does is about to end.
    #[error("the loader daemon at {socket} is away: {reason}")]
    Away {
        /// Its socket.
        socket: String,
        /// What the connection said.
        reason: String,
    },
    /// It refused.
    #[error("the loader daemon refused: {message}")]
    Refused {
        /// With this code.
        code: tonic::Code,
        /// And these words.
        message: String,
    },
    /// Its answer makes no sense.
    #[error("the loader daemon's answer cannot be used: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A field that is out of range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Violation {
    /// Path of the field, as the protocol names it.
    pub(crate) field: String,
    /// What it must be.
    pub(crate) reason: String,
}

// === impl Error ===

impl Error {
    /// One field that is out of range.
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
        let violation = Violation {
            field: field.into(),
            reason: reason.into(),
        };
        Error::Invalid {
            violations: vec![violation],
        }
    }
}

/// An error with all that lies below it, for logs and spans; never for callers.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut below = self.0.source();
        while let Some(cause) = below {
            // Some errors repeat their cause in their own words.
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            below = cause.source();
        }
        Ok(())
    }
}

struct Violations<'a>(&'a [Violation]);

impl fmt::Display for Violations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", violation.field, violation.reason)?;
        }
        Ok(())
    }
}

struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// A directory of thousands of models must not make a header that no client accepts.
        const SHOWN: usize = 20;
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, name) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_models_are_listed_within_reason() {
        let known = (0..25).map(|n| format!("m{n}")).collect();
        let text = Error::UnknownModel {
            model: "x".to_owned(),
            known,
        }
        .to_string();
        assert!(
            text.contains("m0, m1") && text.ends_with("m19 and 5 more"),
            "{text}"
        );
    }

    #[test]
    fn a_chain_says_everything_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading: {0}")]
        struct Repeats(#[source] std::io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("loading")]
        struct Outer(#[source] Repeats);
        let error = Outer(Repeats(std::io::Error::other("no disk")));
        assert_eq!(Chain(&error).to_string(), "loading: reading: no disk");
    }

    #[test]
    fn every_violation_is_in_the_message() {
        let violation = |field: &str| Violation {
            field: field.to_owned(),
            reason: "bad".to_owned(),
        };
        let error = Error::Invalid {
            violations: vec![violation("a"), violation("b")],
        };
        assert_eq!(error.to_string(), "invalid request: a: bad; b: bad");
    }
}
