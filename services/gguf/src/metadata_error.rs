use crate::{Kind, ValueType};

/// Why a metadata value could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The key is absent.
    #[error("metadata key '{key}' is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The value has another type.
    #[error("metadata key '{key}' has type {found}, expected {expected}")]
    Kind {
        /// The key.
        key: String,
        /// What was asked for.
        expected: Kind,
        /// What the file has.
        found: Kind,
    },
    /// An integer that does not fit into the type asked for.
    #[error("metadata key '{key}' has value {value}, which is out of range for type {expected}")]
    Range {
        /// The key.
        key: String,
        /// What was asked for.
        expected: ValueType,
        /// What the file has.
        value: i128,
    },
    /// A string that is not UTF-8.
    #[error("metadata key '{key}' is not UTF-8 text")]
    NotUtf8 {
        /// The key.
        key: String,
    },
}

impl MetadataError {
    pub(crate) fn wrong_kind(key: &str, expected: Kind, found: Kind) -> MetadataError {
        MetadataError::Kind {
            key: key.to_owned(),
            expected,
            found,
        }
    }

    pub(crate) fn out_of_range(key: &str, expected: ValueType, value: i128) -> MetadataError {
        MetadataError::Range {
            key: key.to_owned(),
            expected,
            value,
        }
    }
}
