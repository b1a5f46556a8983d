//! Mapped model files: opening, fetching, evicting, handing over, and the accounting of what that cost.
//!
//! A [`Weights`] is a validated [`gguf::Directory`], the descriptors of its files and one read-only mapping per file. The loader daemon opens files by path; a client gets the descriptors
//! over the [`handoff`] socket, trusts nothing but them, and parses the headers again with the same crate. Both then number extents alike.
//!
//! Why so much care about reads: the page cache is the product. Mappings are `MADV_RANDOM` and descriptors `POSIX_FADV_RANDOM`, so a touched byte brings in its page and nothing else;
//! bytes come in through explicit reads ([`Weights::read_extent`]), measured by the thread that makes them ([`accounting`]). Pages are faulted in by [`Weights::fetch`] before anybody
//! uses them, so that a file that shrank is an error there; [`sigbus`] is the last line for one that shrinks later.

pub mod accounting;
mod error;
mod fetched;
mod filesystem;
pub mod handoff;
mod header;
mod identity;
mod mapping;
mod open;
mod pages;
mod reading;
mod residency;
pub mod sigbus;
pub mod source;
mod view;
mod weights;

pub use error::{FetchError, OpenError, ResidencyError};
pub use fetched::Fetched;
pub use filesystem::FilesystemKind;
pub use gguf::{Directory, Extent, ExtentId};
pub use identity::FileIdentity;
pub use reading::Piece;
pub use residency::{Residency, ResidencySource};
pub use view::ExtentView;
pub use weights::Weights;
