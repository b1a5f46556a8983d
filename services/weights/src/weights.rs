//! A model's directory, descriptors and mappings.

use std::fmt;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use gguf::{Directory, ExtentId};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::accounting::Meter;
use crate::error::{FetchError, OpenError, ResidencyError};
use crate::fetched::Fetched;
use crate::filesystem::FilesystemKind;
use crate::handoff::{AcceptError, LeaseHolder};
use crate::identity::FileIdentity;
use crate::open::{ModelFile, Opened, open_path, open_path_beneath, open_with_siblings};
use crate::pages::{all_extents, pages_around, ranges_of};
use crate::reading::{OnPiece, Piece, Reading};
use crate::residency::{self, Residency, cached_pages};
use crate::source::Source;
use crate::view::ExtentView;

/// A model's directory and the mapped files behind it. Used as `Arc<Weights>`.
///
/// On a client's side it also holds the connection to the daemon, which is the lease: dropping the weights ends it.
pub struct Weights {
    directory: Arc<Directory>,
    directory_hash: [u8; 32],
    identity: Vec<FileIdentity>,
    files: Vec<ModelFile>,
    source: Option<Arc<dyn Source>>,
    lease: Option<LeaseHolder>,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights")
            .field("files", &self.files)
            .field("extents", &self.directory.extents().len())
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Weights {
    /// Opens a model by the path of its only file or of its first split. Only headers are read.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Weights, OpenError> {
        Ok(Weights::from_opened(
            open_with_siblings(path, &open_path)?,
            None,
        ))
    }

    /// Opens a model below `dir`: links may not lead outside, nothing but regular files is opened.
    ///
    /// # Errors
    /// [`OpenError`]; a path that leaves `dir` is [`OpenError::Outside`].
    pub fn open_beneath(dir: BorrowedFd<'_>, relative: &Path) -> Result<Weights, OpenError> {
        let open = |path: &Path| open_path_beneath(dir, path);
        Ok(Weights::from_opened(
            open_with_siblings(relative, &open)?,
            None,
        ))
    }

    pub(crate) fn from_opened(opened: Opened, lease: Option<LeaseHolder>) -> Weights {
        let Opened {
            directory,
            directory_hash,
            identity,
            files,
        } = opened;
        Weights {
            directory: Arc::new(directory),
            directory_hash,
            identity,
            files,
            source: None,
            lease,
        }
    }

    /// The same weights, with reads that this process makes for [`Weights::fetch`] and [`Weights::read_extent`] going through `source`.
    pub fn with_source(self, source: Arc<dyn Source>) -> Weights {
        Weights {
            source: Some(source),
            ..self
        }
    }

    /// The tensors.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Which files, in the order of the splits.
    pub fn identity(&self) -> &[FileIdentity] {
        &self.identity
    }

    /// blake3 of the headers of all files, each behind its length.
    pub fn directory_hash(&self) -> [u8; 32] {
        self.directory_hash
    }

    /// The kind of file system that file `split` lies on.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn filesystem(&self, split: u16) -> FilesystemKind {
        self.files[usize::from(split)].kind
    }

    /// Brings an extent into memory and into our page tables; blocks.
    ///
    /// With a lease the daemon is asked first. If it does not answer in time, or is gone, this process reads for itself. Bytes that had to be read again on our side are cold, whatever the
    /// daemon said of them.
    ///
    /// # Errors
    /// [`FetchError`]; it can be tried again.
    pub fn fetch(&self, extent: ExtentId) -> Result<Fetched, FetchError> {
        let reading = self.reading(extent)?;
        reading.check()?;
        let len_bytes = reading.bytes.end - reading.bytes.start;
        let on_piece: OnPiece<'_> = &mut |_| ControlFlow::Continue(());
        if let Some(mut fetched) = self
            .lease
            .as_ref()
            .and_then(|lease| lease.ask(extent, len_bytes))
        {
            fetched.add_cold(reading.populate(false, on_piece)?.bytes);
            return Ok(fetched);
        }
        let fetched = match &self.source {
            None => Fetched::sorted(len_bytes, reading.populate(true, on_piece)?),
            Some(source) => {
                let mut fetched =
                    Fetched::sorted(len_bytes, reading.read_through(source.as_ref(), on_piece)?);
                fetched.add_cold(reading.populate(false, on_piece)?.bytes);
                fetched
            }
        };
        Ok(Fetched {
            self_read: true,
            ..fetched
        })
    }

    /// Brings an extent into the page cache and leaves our page tables without it; blocks. For those who copy it out with [`Weights::read_into`].
    ///
    /// As with [`Weights::fetch`] the daemon is asked first: of what is cached it only looks at the kernel's count. If it does not answer, this process reads for itself.
    ///
    /// # Errors
    /// [`FetchError`]; it can be tried again.
    pub fn warm(&self, extent: ExtentId) -> Result<Fetched, FetchError> {
        let reading = self.reading(extent)?;
        reading.check()?;
        let len_bytes = reading.bytes.end - reading.bytes.start;
        if let Some(fetched) = self
            .lease
            .as_ref()
            .and_then(|lease| lease.ask(extent, len_bytes))
        {
            return Ok(fetched);
        }
        Ok(Fetched {
            self_read: true,
            ..self.read_extent(extent, &mut |_| ControlFlow::Continue(()))?
        })
    }

    /// Copies bytes of an extent, from `offset_bytes` on, into all of `buf`; returns the bytes that came from storage for it, as far as `meter` knows. What is in the page cache costs one copy.
    ///
    /// `meter`: made by the calling thread.
    ///
    /// # Errors
    /// [`FetchError`], as for a file that shrank or changed, before or while it was read. What `buf` holds is worthless then.
    ///
    /// # Panics
    /// If the extent has no such bytes.
    pub fn read_into(
        &self,
        extent: ExtentId,
        offset_bytes: u64,
        buf: &mut [u8],
        meter: &mut Meter,
    ) -> Result<u64, FetchError> {
        let reading = self.reading(extent)?;
        reading.check()?;
        reading.copy_out(offset_bytes, buf)?;
        reading.check()?;
        Ok(meter.lap().known_bytes())
    }

    /// The bytes of an extent. Touching them before [`Weights::fetch`] faults page by page.
    pub fn view(self: &Arc<Self>, extent: ExtentId) -> ExtentView {
        ExtentView::new(Arc::clone(self), extent)
    }

    pub(crate) fn bytes(&self, extent: ExtentId) -> &[u8] {
        let extent = self.directory.extent(extent);
        self.files[usize::from(extent.split_index)]
            .mapping
            .bytes(extent.range())
    }

    /// Takes an extent out of our page tables and tells the daemon that we do not need it.
    ///
    /// Pages that it shares with its neighbours stay. Does not block.
    ///
    /// # Panics
    /// If there is no such extent.
    pub fn evict(&self, extent: ExtentId) {
        let place = self.directory.extent(extent);
        self.files[usize::from(place.split_index)]
            .mapping
            .release(&place.range());
        if let Some(lease) = &self.lease {
            lease.tell_dropped(extent);
        }
    }

    /// Whether a mapping lost pages under a reader; what was computed from it since is worthless. See [`crate::sigbus`].
    pub fn poisoned(&self) -> bool {
        self.files.iter().any(|file| file.mapping.poisoned())
    }

    /// Address and length of the mapping of file `split`, to find it in `/proc/self/smaps`.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn mapped_range(&self, split: u16) -> (usize, usize) {
        self.files[usize::from(split)].mapping.address_range()
    }

    /// Whether a daemon holds a lease for us.
    pub fn lease_held(&self) -> bool {
        self.lease.as_ref().is_some_and(LeaseHolder::held)
    }

    /// The daemon's number for this content, from the last hand-shake; `None` if these weights were opened by path.
    pub fn generation(&self) -> Option<u64> {
        self.lease.as_ref().map(LeaseHolder::generation)
    }

    /// Takes up a new lease in place of a lost one. Descriptors and mappings stay as they are.
    ///
    /// # Errors
    /// [`AcceptError`]; the same files and the same headers are demanded.
    pub fn reattach(&self, socket: &Path, token: &[u8]) -> Result<(), AcceptError> {
        let lease = self.lease.as_ref().ok_or(AcceptError::NoLease)?;
        lease.renew(socket, token, &self.identity, &self.directory_hash)
    }

    /// Reads an extent into the page cache, unless it is there; blocks. Our page tables are left without it.
    ///
    /// `on_piece` hears of every piece (at most 1 MiB unless nothing had to be read) and may wait, to limit the rate, or stop the read.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::Stopped`] if `on_piece` breaks.
    pub fn read_extent(
        &self,
        extent: ExtentId,
        on_piece: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<Fetched, FetchError> {
        let reading = self.reading(extent)?;
        reading.check()?;
        let len_bytes = reading.bytes.end - reading.bytes.start;
        let storage = if let Some(source) = &self.source {
            reading.read_through(source.as_ref(), on_piece)?
        } else if is_cached(&reading) {
            return match on_piece(Piece {
                len_bytes,
                cold_bytes: 0,
            }) {
                ControlFlow::Continue(()) => Ok(Fetched {
                    warm_bytes: len_bytes,
                    ..Fetched::default()
                }),
                ControlFlow::Break(()) => Err(FetchError::Stopped),
            };
        } else {
            let result = reading.populate(true, on_piece);
            // Whoever wants the bytes maps them for itself; mapped here, they could not be dropped from the page cache.
            reading.file.mapping.release_around(&reading.bytes);
            result?
        };
        Ok(Fetched::sorted(len_bytes, storage))
    }

    /// How much of the tensors is in the page cache. For the process that owns the files, never for a client.
    ///
    /// # Errors
    /// [`ResidencyError`], where the kernel would refuse or lie.
    pub fn residency(&self) -> Result<Residency, ResidencyError> {
        residency::residency(&self.directory, &self.files)
    }

    /// Drops extents from the page cache, as far as no other process has them mapped.
    ///
    /// The kernel keeps large folios (up to some MiB where a file was written or read ahead in one go) that the extents cover only in part. With a file's first tensor
    /// its header goes too.
    ///
    /// # Errors
    /// What `posix_fadvise` gives.
    pub fn drop_page_cache(&self, extents: &[ExtentId]) -> io::Result<()> {
        let all = self.ranges(&all_extents(&self.directory));
        for (file, range) in self.ranges(extents) {
            file.mapping.release_around(&range);
            let of_file = || {
                all.iter()
                    .filter(|(other, _)| std::ptr::eq(*other, file))
                    .map(|(_, tensors)| tensors)
            };
            // Up to the ends of the file, lest a folio that also holds the header, or padding, stays.
            let start = if of_file().any(|tensors| tensors.start < range.start) {
                range.start
            } else {
                0
            };
            let end = if of_file().any(|tensors| tensors.end > range.end) {
                range.end
            } else {
                file.mapping.len_bytes()
            };
            let (offset, len) = (to_offset(start)?, to_offset(end - start)?);
            posix_fadvise(
                &file.file,
                offset,
                len,
                PosixFadviseAdvice::POSIX_FADV_DONTNEED,
            )?;
        }
        Ok(())
    }

    /// Locks all tensor pages into memory (`mlock`). Pages that are not there are read one by one: read the extents before.
    ///
    /// # Errors
    /// What `mlock` gives, above all `EPERM` and `ENOMEM` (limits); nothing stays locked then.
    pub fn lock(&self) -> io::Result<()> {
        for (file, range) in self.ranges(&all_extents(&self.directory)) {
            if let Err(error) = file.mapping.lock(&range) {
                // Whatever this gives, the first error is the one to tell.
                let _ = self.unlock();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Undoes [`Weights::lock`].
    ///
    /// # Errors
    /// What `munlock` gives.
    pub fn unlock(&self) -> io::Result<()> {
        for (file, range) in self.ranges(&all_extents(&self.directory)) {
            file.mapping.unlock(&range)?;
            file.mapping.release_around(&range);
        }
        Ok(())
    }

    pub(crate) fn files(&self) -> &[ModelFile] {
        &self.files
    }

    fn reading(&self, extent: ExtentId) -> Result<Reading<'_>, FetchError> {
        let count = self.directory.extents().len();
        let place = self
            .directory
            .get_extent(extent)
            .ok_or(FetchError::NoSuchExtent {
                index: extent.0,
                count,
            })?;
        let split = place.split_index;
        let index = usize::from(split);
        Ok(Reading {
            file: &self.files[index],
            identity: &self.identity[index],
            split,
            bytes: place.range(),
        })
    }

    /// The bytes of `extents`, file by file.
    fn ranges(&self, extents: &[ExtentId]) -> Vec<(&ModelFile, Range<u64>)> {
        let mut ranges = Vec::new();
        for (split, file) in (0..).zip(&self.files) {
            ranges.extend(
                ranges_of(&self.directory, extents, split)
                    .into_iter()
                    .map(|range| (file, range)),
            );
        }
        ranges
    }
}

impl Source for Weights {
    /// Reads with `pread`, whatever [`Weights::with_source`] was given.
    fn read_at(&self, split: u16, offset_bytes: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = self
            .files
            .get(usize::from(split))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        file.file.read_at(buf, offset_bytes)
    }
}

/// Whether every page is in the page cache. No, where the kernel would not say or not know.
fn is_cached(reading: &Reading<'_>) -> bool {
    let pages = pages_around(&reading.bytes);
    let page_count = (pages.end - pages.start) / crate::pages::page_bytes();
    reading.file.kind.cachestat_is_true()
        && cached_pages(&reading.file.file, &pages) == Ok(page_count)
}

fn to_offset(bytes: u64) -> io::Result<i64> {
    i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_views_go_to_other_threads() {
        fn check<T: Send + Sync>() {}
        check::<Weights>();
        check::<ExtentView>();
        check::<crate::handoff::HandoffServer>();
    }
}
