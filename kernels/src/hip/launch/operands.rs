//! What launches have in common: checked addresses, and the forms of activations.

use bytemuck::{NoUninit, Pod, Zeroable};

use crate::hip::{Args, Function, Grid, HipError, Stream, View};

/// Numbers that share a scale in the int8 form.
pub(super) const BLOCK_LEN: usize = 32;
/// Bytes that belong to a block of the int8 form: its scale and the sums of its halves.
const BLOCK_BYTES: usize = 8;

/// Rows quantised for dot products: see `kernels/hip/forms.h`.
#[derive(Debug, Clone, Copy)]
pub struct Int8<'a> {
    /// `[rows, n]` i8.
    pub quants: &'a View,
    /// `[rows, n / 32]` of 8 bytes: scale f32, sums of the first and of the last 16 quants i16.
    pub blocks: &'a View,
}

impl Int8<'_> {
    /// Numbers that share a scale: rows are whole blocks of them.
    pub const BLOCK_LEN: usize = BLOCK_LEN;

    /// Bytes of `quants` and of `blocks` for rows of `n` numbers.
    #[must_use]
    pub fn bytes(rows: usize, n: usize) -> (usize, usize) {
        (rows * n, rows * (n / BLOCK_LEN) * BLOCK_BYTES)
    }
}

/// Rows for matrix cores: see `kernels/hip/forms.h`.
#[derive(Debug, Clone, Copy)]
pub struct Half<'a> {
    /// `[rows, n]` f16.
    pub numbers: &'a View,
    /// `[rows]` f32.
    pub scales: &'a View,
}

impl Half<'_> {
    /// Bytes of `numbers` and of `scales` for rows of `n` numbers.
    #[must_use]
    pub fn bytes(rows: usize, n: usize) -> (usize, usize) {
        (rows * n * 2, rows * 4)
    }
}

/// The forms in which a kernel writes its rows: any of them, at least one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forms<'a> {
    /// `[rows, n]` f32.
    pub f32: Option<&'a View>,
    /// For dot products; `n` is a multiple of 32 then.
    pub int8: Option<Int8<'a>>,
    /// For matrix cores.
    pub half: Option<Half<'a>>,
}

/// `Forms` of `forms.h`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct FormsArgs {
    f32: u64,
    quants: u64,
    blocks: u64,
    half: u64,
    scales: u64,
}

/// Collects the views of a launch: each is checked against what the kernel reads or writes, and held.
#[derive(Debug, Default)]
pub(super) struct Operands<'a> {
    views: Vec<&'a View>,
}

impl<'a> Operands<'a> {
    /// The address of a view of at least `bytes` bytes.
    pub(super) fn address(
        &mut self,
        what: &'static str,
        view: &'a View,
        bytes: usize,
    ) -> Result<u64, HipError> {
        if view.len() < bytes {
            return Err(HipError::Range {
                what,
                start: 0,
                end: bytes,
                len: view.len(),
            });
        }
        self.views.push(view);
        Ok(view.address() as u64)
    }

    /// Holds views that the kernel reaches through addresses in device memory.
    pub(super) fn hold(&mut self, views: &'a [View]) {
        self.views.extend(views);
    }

    /// As [`Operands::address`], 0 for no view.
    pub(super) fn optional(
        &mut self,
        what: &'static str,
        view: Option<&'a View>,
        bytes: usize,
    ) -> Result<u64, HipError> {
        view.map_or(Ok(0), |view| self.address(what, view, bytes))
    }

    pub(super) fn int8(
        &mut self,
        form: Option<Int8<'a>>,
        rows: usize,
        n: usize,
    ) -> Result<[u64; 2], HipError> {
        let Some(form) = form else { return Ok([0; 2]) };
        require("row of the int8 form", n.is_multiple_of(BLOCK_LEN), n)?;
        let (quants, blocks) = Int8::bytes(rows, n);
        Ok([
            self.address("quants", form.quants, quants)?,
            self.address("blocks of quants", form.blocks, blocks)?,
        ])
    }

    pub(super) fn half(
        &mut self,
        form: Option<Half<'a>>,
        rows: usize,
        n: usize,
    ) -> Result<[u64; 2], HipError> {
        let Some(form) = form else { return Ok([0; 2]) };
        let (numbers, scales) = Half::bytes(rows, n);
        Ok([
            self.address("half numbers", form.numbers, numbers)?,
            self.address("scales of half numbers", form.scales, scales)?,
        ])
    }

    pub(super) fn forms(
        &mut self,
        forms: Forms<'a>,
        rows: usize,
        n: usize,
    ) -> Result<FormsArgs, HipError> {
        let [quants, blocks] = self.int8(forms.int8, rows, n)?;
        let [half, scales] = self.half(forms.half, rows, n)?;
        Ok(FormsArgs {
            f32: self.optional("out", forms.f32, rows * n * 4)?,
            quants,
            blocks,
            half,
            scales,
        })
    }

    /// Enqueues the kernel; nothing if the grid has no block.
    ///
    /// # Safety
    /// `args` is the structure that the kernel takes. With it and this grid the kernel reads and writes only inside the views that were collected here.
    pub(super) unsafe fn launch<T: NoUninit>(
        self,
        stream: &Stream,
        function: &Function,
        grid: Grid,
        args: T,
    ) -> Result<(), HipError> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        let args = self
            .views
            .into_iter()
            .fold(Args::new().value(args), Args::holding);
        // SAFETY: the caller's word.
        unsafe { stream.launch(function, grid, args) }
    }
}

/// A number as the kernel takes it.
///
/// # Errors
/// [`HipError::Range`] if it is larger than 32 bits hold.
pub(super) fn narrow(what: &'static str, number: usize) -> Result<u32, HipError> {
    u32::try_from(number).map_err(|_| too_large(what, number))
}

/// That a size is one that the kernel takes.
pub(super) fn require(what: &'static str, holds: bool, size: usize) -> Result<(), HipError> {
    if holds {
        Ok(())
    } else {
        Err(too_large(what, size))
    }
}

fn too_large(what: &'static str, number: usize) -> HipError {
    HipError::Range {
        what,
        start: 0,
        end: number,
        len: 0,
    }
}

/// A grid of blocks of so many threads in one dimension.
pub(super) fn grid(blocks: [u32; 3], threads: u32) -> Grid {
    Grid {
        blocks,
        threads: [threads, 1, 1],
        shared_bytes: 0,
    }
}
