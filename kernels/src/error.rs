//! What an operation refuses.

use gguf::TensorType;

/// Why an operation was refused. Nothing has been computed or written then, but where a GPU failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// An operand's shape disagrees with the others.
    #[error("{op}: {operand} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand that is wrong.
        operand: &'static str,
        /// The shape that the other operands ask for; 0 stands for "any" where nothing fixes a dimension.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A list that must have one entry per row (ids, positions, slots) has another length.
    #[error("{op}: {found} {operand}, expected {expected}")]
    Count {
        /// The operation.
        op: &'static str,
        /// What is counted.
        operand: &'static str,
        /// Number of entries that the other operands ask for.
        expected: usize,
        /// Number of entries that were given.
        found: usize,
    },
    /// The device has no kernel for an operand's tensor type.
    #[error("{op}: {operand} is {}, which this device does not take here", found.name())]
    TensorType {
        /// The operation.
        op: &'static str,
        /// The operand that is wrong.
        operand: &'static str,
        /// Its tensor type.
        found: TensorType,
    },
    /// Operands live on different devices.
    #[error("{op}: {operand} is on {found}, the other operands are on {expected}")]
    Device {
        /// The operation.
        op: &'static str,
        /// The operand that is wrong.
        operand: &'static str,
        /// Description of the device of the first operand.
        expected: String,
        /// Description of the device of this operand.
        found: String,
    },
    /// An index (token id, row, block, offset, position, layer) is outside of what it indexes.
    #[error("{op}: {what} {index} at entry {entry} is out of range, there are {limit}")]
    OutOfRange {
        /// The operation.
        op: &'static str,
        /// What kind of index.
        what: &'static str,
        /// Position of the index in the list that was given.
        entry: usize,
        /// The index.
        index: u64,
        /// The first index that does not exist.
        limit: u64,
    },
    /// A row index was made for a vocabulary or a store of another size: what it let pass may not exist here.
    #[error("{op}: the row index was made for {what} = {expected}, found {found}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The size that differs, by the name of its field.
        what: &'static str,
        /// What the index was made for.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// An operand that holds activations looks at memory of somebody else.
    #[error("{op}: {operand} is a view, activations must own their memory")]
    NotOwned {
        /// The operation.
        op: &'static str,
        /// The operand that is wrong.
        operand: &'static str,
    },
    /// The bytes given for a tensor are not what its shape and type need.
    #[error("a {} tensor of shape {shape:?} needs {expected:?} bytes, found {found}", tensor_type.name())]
    Bytes {
        /// Tensor type.
        tensor_type: TensorType,
        /// Shape, slowest dimension first.
        shape: Vec<usize>,
        /// Bytes needed; `None` when no whole number of blocks makes up a row.
        expected: Option<u64>,
        /// Bytes that were given.
        found: u64,
    },
    /// The device does not have the operation.
    #[error("{op}: {device} does not have this operation")]
    NotOnDevice {
        /// The operation.
        op: &'static str,
        /// Kind of the device.
        device: &'static str,
    },
    /// A row goes to an expert whose weights were not given.
    #[error("{op}: expert {expert} is needed and not there")]
    Expert {
        /// The operation.
        op: &'static str,
        /// Which one.
        expert: u32,
    },
    /// The machine does not have the memory, or the size does not fit into an address.
    #[error("no memory for shape {shape:?}")]
    Memory {
        /// Shape, slowest dimension first.
        shape: Vec<usize>,
    },
    /// The GPU failed or refused.
    #[error(transparent)]
    Hip(#[from] crate::hip::HipError),
}
