//! A GPU with a stream to time things on.

use std::error::Error;
use std::sync::Arc;

use kernels::hip::launch::Kernels;
use kernels::hip::{Event, Gpu, HipError, Memory, Pinned, Stream, View};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

pub(crate) struct Bench {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) kernels: Kernels,
    pub(crate) stream: Stream,
}

impl Bench {
    pub(crate) fn memory(&self, len: usize) -> Outcome<View> {
        Ok(View::whole(&Memory::allocate(&self.gpu, len.max(1))?))
    }

    pub(crate) fn upload(&self, bytes: &[u8]) -> Outcome<View> {
        let view = self.memory(bytes.len())?;
        let mut pinned = Pinned::allocate(&self.gpu, bytes.len())?;
        pinned.bytes_mut().copy_from_slice(bytes);
        self.stream.upload(pinned, 0..bytes.len(), &view)?.wait()?;
        Ok(view)
    }

    pub(crate) fn download(&self, view: &View, len: usize) -> Outcome<Vec<f32>> {
        let part = view.slice(0..len * 4)?;
        let pinned = self
            .stream
            .download(&part, Pinned::allocate(&self.gpu, len * 4)?, 0..len * 4)?
            .wait()?;
        Ok(pinned
            .bytes()
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect())
    }

    /// Microseconds of one of `count` things that `enqueue` enqueues, the median of five replays of all.
    pub(crate) fn time(
        &self,
        count: usize,
        enqueue: impl Fn(usize) -> Result<(), HipError>,
    ) -> Outcome<f64> {
        let graph = self.stream.capture(|_| (0..count).try_for_each(&enqueue))?;
        graph.launch(&self.stream)?;
        let mut times = Vec::new();
        for _ in 0..5 {
            let (start, end) = (Event::timed(&self.gpu)?, Event::timed(&self.gpu)?);
            self.stream.record(&start)?;
            graph.launch(&self.stream)?;
            self.stream.record(&end)?;
            end.synchronize()?;
            times.push(f64::from(end.elapsed_ms(&start)?) * 1e3 / count as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[2])
    }

    pub(crate) fn copy_rate(&self) -> Outcome<f64> {
        let bytes = 1 << 30;
        let (from, to) = (self.memory(bytes)?, self.memory(bytes)?);
        let us = self.time(4, |_| self.stream.copy(&from, &to))?;
        Ok(2.0 * bytes as f64 / us / 1e3)
    }
}
