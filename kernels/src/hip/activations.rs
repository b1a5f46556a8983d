//! Activations in device memory, in the forms that kernels want them.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use super::launch::{Forms, Half, Int8, rowwise};
use super::weight::numbers;
use super::{Hip, HipError, View};

/// A form besides the f32 numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For dot products.
    Int8 = 1,
    /// For matrix cores.
    Half = 2,
}

/// Rows of f32 numbers, with room for their other forms.
///
/// # Who writes the forms
/// A product wants one of them. What wrote the numbers may have written it at once, in the same kernel; else the product has it made, and notes that it was wanted, so that the next writer
/// writes it. Whoever writes the numbers first makes all forms invalid.
#[derive(Debug)]
pub(crate) struct Activations {
    hip: Arc<Hip>,
    numbers: View,
    /// Elements of a row.
    n: usize,
    max_rows: usize,
    /// Allocated when a product first wants any.
    others: OnceLock<Others>,
    /// Bits of [`Form`] that hold what the numbers hold.
    valid: AtomicU8,
    /// Bits of [`Form`] that were wanted since the numbers were last written.
    wanted: AtomicU8,
}

#[derive(Debug)]
struct Others {
    /// Only for rows of whole blocks.
    int8: Option<[View; 2]>,
    half: [View; 2],
}

impl Activations {
    pub(crate) fn zeros(
        hip: &Arc<Hip>,
        max_rows: usize,
        n: usize,
    ) -> Result<Activations, HipError> {
        Ok(Activations {
            numbers: hip.zeros(max_rows * n * size_of::<f32>())?,
            hip: hip.clone(),
            n,
            max_rows,
            others: OnceLock::new(),
            valid: AtomicU8::new(0),
            wanted: AtomicU8::new(0),
        })
    }

    /// Puts numbers of the host into the first rows, and waits until they are there.
    pub(crate) fn set(&mut self, data: &[f32]) -> Result<(), HipError> {
        self.forget_forms();
        let bytes = bytemuck::cast_slice(data);
        self.hip.upload(bytes, &self.numbers.slice(0..bytes.len())?)
    }

    /// The first `len` numbers, once all that is enqueued is done.
    pub(crate) fn get(&self, len: usize) -> Result<Vec<f32>, HipError> {
        numbers(&self.hip, &self.numbers, len)
    }

    /// The f32 numbers of all rows that there is room for.
    pub(crate) fn numbers(&self) -> &View {
        &self.numbers
    }

    /// Elements of a row.
    pub(crate) fn row_len(&self) -> usize {
        self.n
    }

    /// Elements that there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.max_rows * self.n
    }

    /// Says that the numbers are about to be written, and nothing else: other forms are no longer what they were.
    pub(crate) fn write_numbers(&mut self) -> &View {
        *self.valid.get_mut() = 0;
        &self.numbers
    }

    /// All that is to be written by a kernel that can write some other forms besides the numbers: those that products have wanted lately.
    pub(crate) fn write_forms(&mut self, possible: &[Form]) -> Forms<'_> {
        let wanted = std::mem::take(self.wanted.get_mut());
        let mut forms = Forms {
            f32: Some(&self.numbers),
            ..Forms::default()
        };
        let mut valid = 0;
        if let Some(others) = self.others.get() {
            let is_wanted = |form| possible.contains(&form) && wanted & form as u8 != 0;
            if is_wanted(Form::Int8) {
                forms.int8 = others.int8();
                valid |= Form::Int8 as u8;
            }
            if is_wanted(Form::Half) {
                forms.half = Some(others.half());
                valid |= Form::Half as u8;
            }
        }
        *self.valid.get_mut() = valid;
        forms
    }

    /// Other forms hold nothing any more, as for rows that were not there when they were written.
    pub(crate) fn forget_forms(&mut self) {
        *self.valid.get_mut() = 0;
    }

    /// The form for dot products, of the first `rows` rows.
    pub(crate) fn int8(&self, rows: usize) -> Result<Option<Int8<'_>>, HipError> {
        let Some(form) = self.others()?.int8() else {
            return Ok(None);
        };
        let forms = Forms {
            int8: Some(form),
            ..Forms::default()
        };
        self.make(Form::Int8, rows, forms)?;
        Ok(Some(form))
    }

    /// The form for matrix cores, of the first `rows` rows.
    pub(crate) fn half(&self, rows: usize) -> Result<Half<'_>, HipError> {
        let form = self.others()?.half();
        let forms = Forms {
            half: Some(form),
            ..Forms::default()
        };
        self.make(Form::Half, rows, forms)?;
        Ok(form)
    }

    /// Has a form made that is not valid yet.
    fn make(&self, form: Form, rows: usize, forms: Forms) -> Result<(), HipError> {
        let bit = form as u8;
        self.wanted.fetch_or(bit, Ordering::Relaxed);
        if self.valid.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let hip = &self.hip;
        rowwise::write_forms(
            hip.stream(),
            hip.kernels(),
            &self.numbers,
            [rows, self.n],
            forms,
        )?;
        self.valid.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    fn others(&self) -> Result<&Others, HipError> {
        if let Some(others) = self.others.get() {
            return Ok(others);
        }
        let others = Others::allocate(&self.hip, self.max_rows, self.n)?;
        Ok(self.others.get_or_init(|| others))
    }
}

impl Others {
    fn allocate(hip: &Hip, rows: usize, n: usize) -> Result<Others, HipError> {
        let pair = |(first, second)| Ok([hip.zeros(first)?, hip.zeros(second)?]);
        let int8 = n
            .is_multiple_of(Int8::BLOCK_LEN)
            .then(|| pair(Int8::bytes(rows, n)));
        Ok(Others {
            int8: int8.transpose()?,
            half: pair(Half::bytes(rows, n))?,
        })
    }

    fn int8(&self) -> Option<Int8<'_>> {
        let [quants, blocks] = self.int8.as_ref()?;
        Some(Int8 { quants, blocks })
    }

    fn half(&self) -> Half<'_> {
        let [numbers, scales] = &self.half;
        Half { numbers, scales }
    }
}
