//! One file's read-only mapping.
#![expect(
    unsafe_code,
    reason = "mapping a file, and the page calls that memmap2 does not have"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};
use nix::errno::Errno;
use nix::sys::mman::{mlock, munlock};

use crate::pages::{page_bytes, pages_around, pages_inside, to_bytes, to_index};
use crate::sigbus::Registration;

/// A shared read-only mapping of a whole file, random-advised, known to the SIGBUS table.
///
/// Shared and read-only: its pages are the page cache's, the same in every process, and can never become anonymous copies.
#[derive(Debug)]
pub(crate) struct Mapping {
    // Before `map`: fields are dropped in this order, and the handler must forget the mapping before the addresses are free for others.
    registration: Registration,
    map: Mmap,
}

/// Why a file could not be mapped.
#[derive(Debug)]
pub(crate) enum MapError {
    Io(io::Error),
    TableFull,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`.
    pub(crate) fn new(file: &File, len: u64) -> Result<Mapping, MapError> {
        // SAFETY: a private view of this memory as `&[u8]` is sound as long as nobody changes the file. Files of models are replaced, not rewritten; where one is rewritten all the same,
        // readers see other bytes, which they must expect of a hostile file anyway: nothing that was proven about one byte is relied on when it is read again. A file that shrinks raises
        // SIGBUS, which `registration` turns into zeros.
        let map =
            unsafe { MmapOptions::new().len(to_index(len)).map(file) }.map_err(MapError::Io)?;
        map.advise(Advice::Random).map_err(MapError::Io)?;
        let registration = Registration::new(map.as_ptr().expose_provenance(), map.len())
            .ok_or(MapError::TableFull)?;
        Ok(Mapping { registration, map })
    }

    /// Bytes of the mapping. The range was proven to lie inside the file when its header was parsed.
    pub(crate) fn bytes(&self, range: Range<u64>) -> &[u8] {
        &self.map[to_index(range.start)..to_index(range.end)]
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        to_bytes(self.map.len())
    }

    /// Address and length.
    pub(crate) fn address_range(&self) -> (usize, usize) {
        (self.map.as_ptr().addr(), self.map.len())
    }

    pub(crate) fn poisoned(&self) -> bool {
        self.registration.poisoned()
    }

    /// Faults in the pages of `range`. A page that cannot be had is `EFAULT`, not a signal. Tried on ext4: so is a range across the end of a shrunken file.
    pub(crate) fn populate(&self, range: &Range<u64>) -> io::Result<()> {
        let (start, len) = self.whole_pages(range);
        loop {
            match self.map.advise_range(Advice::PopulateRead, start, len) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                result => return result,
            }
        }
    }

    /// Takes the pages of `range` out of our page tables, and those around it that were mapped along: faulting in one page maps neighbours that the page cache holds.
    pub(crate) fn release_around(&self, range: &Range<u64>) {
        /// The kernel's default window; it lies within this distance of the page. Source: mm/memory.c, `fault_around_pages`.
        const FAULT_AROUND_BYTES: u64 = 64 << 10;
        let start = range.start.saturating_sub(FAULT_AROUND_BYTES);
        self.release(&(start..range.end.saturating_add(FAULT_AROUND_BYTES)));
    }

    /// Takes the whole pages inside `range` out of our page tables; the page cache keeps them.
    ///
    /// Locked pages stay. The last page of the file counts as whole.
    pub(crate) fn release(&self, range: &Range<u64>) {
        let mut pages = pages_inside(range);
        if range.end >= self.len_bytes() {
            pages.end = self.len_bytes();
        }
        if pages.is_empty() {
            return;
        }
        let (start, len) = (to_index(pages.start), to_index(pages.end - pages.start));
        // SAFETY: the pages are a file's and shared, so dropping them loses nothing: the next touch maps the same bytes again. Where zeros were mapped over them, it maps zeros again.
        let result = unsafe {
            self.map
                .unchecked_advise_range(UncheckedAdvice::DontNeed, start, len)
        };
        if let Err(error) = result {
            tracing::debug!(%error, "pages stay mapped");
        }
    }

    /// Locks the pages of `range` into memory.
    pub(crate) fn lock(&self, range: &Range<u64>) -> io::Result<()> {
        let (address, len) = self.pointer(range);
        // SAFETY: the pages are inside our mapping.
        Ok(unsafe { mlock(address, len) }?)
    }

    /// Undoes `lock`.
    pub(crate) fn unlock(&self, range: &Range<u64>) -> io::Result<()> {
        let (address, len) = self.pointer(range);
        // SAFETY: the pages are inside our mapping.
        Ok(unsafe { munlock(address, len) }?)
    }

    /// How many of the pages around `range` the page cache holds, according to `mincore`.
    pub(crate) fn resident_pages(&self, range: &Range<u64>) -> nix::Result<u64> {
        let (address, len) = self.pointer(range);
        let mut present = vec![0_u8; len.div_ceil(to_index(page_bytes()))];
        // SAFETY: the pages are inside our mapping and `present` has a byte for each.
        let result = unsafe { libc::mincore(address.as_ptr(), len, present.as_mut_ptr()) };
        Errno::result(result)?;
        Ok(present.iter().map(|byte| u64::from(byte & 1)).sum())
    }

    /// Offset and length of the pages around `range`, cut at the end of the mapping.
    fn whole_pages(&self, range: &Range<u64>) -> (usize, usize) {
        let pages = pages_around(range);
        let end = pages.end.min(self.len_bytes());
        (to_index(pages.start), to_index(end - pages.start))
    }

    fn pointer(&self, range: &Range<u64>) -> (NonNull<libc::c_void>, usize) {
        let (start, len) = self.whole_pages(range);
        (NonNull::from(&self.map[start..start + len]).cast(), len)
    }
}
