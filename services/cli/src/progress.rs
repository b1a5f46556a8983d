//! How far a load or a prefetch has come: a bar where a person looks, a few plain lines where a file or a pipe does.

use std::{io, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    output::{self, Stream},
    units,
};

/// A display on standard error.
pub(crate) enum Progress {
    /// For people.
    Bar(ProgressBar),
    /// For logs.
    Lines(Stream, Milestones),
}

impl Progress {
    /// A display for work on `subject`.
    pub(crate) fn new(subject: &str) -> Progress {
        let stderr = output::stderr();
        if !stderr.is_terminal {
            return Progress::Lines(stderr, Milestones::new(subject));
        }
        let bar = ProgressBar::hidden();
        let template = "{prefix} {msg:<10} [{bar:32}] {binary_bytes} of {binary_total_bytes}";
        let style = ProgressStyle::with_template(template)
            .expect("the template is a constant that a test renders");
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(output::one_line(subject));
        Progress::Bar(bar)
    }

    /// Shows that `phase` has moved `done` of `total` bytes.
    pub(crate) fn update(&mut self, phase: &'static str, done: u64, total: u64) -> io::Result<()> {
        match self {
            Progress::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                if bar.message() != phase {
                    bar.set_message(phase);
                }
                // Shown only from here on: before, there is nothing to see.
                if bar.is_hidden() {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                Ok(())
            }
            Progress::Lines(stderr, milestones) => match milestones.reached(phase, done, total) {
                Some(line) => stderr.line(line),
                None => Ok(()),
            },
        }
    }

    /// Takes the bar away, so that what comes next starts on a clean line.
    pub(crate) fn clear(&mut self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Says that something is being waited for, where a person looks and only if it takes long enough to wonder.
pub(crate) struct Waiting(Option<ProgressBar>);

impl Waiting {
    /// From now on, `what` is being waited for.
    pub(crate) fn new(what: &'static str) -> Waiting {
        /// Shorter waits need no word.
        const PATIENCE: Duration = Duration::from_millis(400);
        if !output::stderr().is_terminal {
            return Waiting(None);
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
        bar.set_style(style.expect("the template is a constant that a test renders"));
        // The first tick comes after this time, and nothing is drawn before it.
        bar.enable_steady_tick(PATIENCE);
        Waiting(Some(bar))
    }

    /// It has come.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Counts rounds of work, where a person looks.
pub(crate) struct Steps(Option<ProgressBar>);

impl Steps {
    /// Work of so many rounds.
    pub(crate) fn new(rounds: u64) -> Steps {
        if !output::stderr().is_terminal {
            return Steps(None);
        }
        let bar = ProgressBar::new(rounds);
        let style = ProgressStyle::with_template("[{bar:32}] {pos} of {len} runs, {elapsed}");
        let style = style.expect("the template is a constant that a test renders");
        bar.set_style(style.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(500));
        Steps(Some(bar))
    }

    /// One round is over.
    pub(crate) fn done(&mut self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Decides which progress is worth a line: each new phase, then every tenth of it.
pub(crate) struct Milestones {
    subject: String,
    phase: &'static str,
    tenths: u64,
}

impl Milestones {
    fn new(subject: &str) -> Milestones {
        Milestones {
            subject: subject.to_owned(),
            phase: "",
            tenths: 0,
        }
    }

    fn reached(&mut self, phase: &'static str, done: u64, total: u64) -> Option<String> {
        let tenths = done.saturating_mul(10).checked_div(total).unwrap_or(0);
        if phase == self.phase && tenths <= self.tenths {
            return None;
        }
        self.phase = phase;
        self.tenths = tenths;
        let subject = &self.subject;
        if total == 0 {
            return Some(format!("{subject}: {phase}"));
        }
        let (done, total) = (units::bytes(done), units::bytes(total));
        Some(format!(
            "{subject}: {phase} {}% ({done} of {total})",
            tenths * 10
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_phase_and_each_tenth() {
        let mut milestones = Milestones::new("m");
        let mut check = |phase, done, total, expected: Option<&str>| {
            assert_eq!(milestones.reached(phase, done, total).as_deref(), expected);
        };
        check("attach", 0, 0, Some("m: attach"));
        check("attach", 0, 0, None);
        check("fetch", 0, 1000, Some("m: fetch 0% (0 B of 1000 B)"));
        check("fetch", 99, 1000, None);
        check("fetch", 100, 1000, Some("m: fetch 10% (100 B of 1000 B)"));
        check("fetch", 450, 1000, Some("m: fetch 40% (450 B of 1000 B)"));
        check(
            "fetch",
            1000,
            1000,
            Some("m: fetch 100% (1000 B of 1000 B)"),
        );
        check("fetch", 1000, 1000, None);
    }

    #[test]
    fn the_bar_renders() {
        let mut progress = Progress::Bar(ProgressBar::hidden());
        progress
            .update("fetch", 5, 10)
            .expect("hidden bars write nothing");
        progress.clear();
        Progress::new("m\x1b").clear();
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
        assert!(style.is_ok());
        let style = ProgressStyle::with_template("[{bar:32}] {pos} of {len} runs, {elapsed}");
        assert!(style.is_ok());
        Waiting::new("m").clear();
        Steps::new(2).done();
    }
}
