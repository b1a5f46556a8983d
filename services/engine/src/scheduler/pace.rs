use std::time::Duration;

/// How long a model's steps take, learnt from those that ended: so that a step that carries running streams carries only as much of a prompt beside them as they can bear.
///
/// A step costs what its decode rows cost, mostly the weights that are read once for all rows, and something for each prompt row. Both are followed, because contexts grow and machines get busy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Seconds of a step without prompt rows.
    decode: Option<f64>,
    /// Seconds that a prompt row adds.
    row: Option<f64>,
}

/// Prompt rows beside decode rows before anything is known.
const FIRST_GUESS: usize = 32;
/// A prompt always comes on by so many rows.
const LEAST_ROWS: usize = 8;
/// How far a new measurement moves what is known.
const NEWS: f64 = 0.25;

impl Pace {
    /// A step with so many prompt rows took so long.
    pub(super) fn learn(&mut self, prompt_rows: usize, took: Duration) {
        let took = took.as_secs_f64();
        if prompt_rows == 0 {
            follow(&mut self.decode, took);
        } else {
            // Without a step to compare with, a prompt row bears everything: then it is thought dearer than it is, and a step still keeps to its time.
            let beside = self.decode.unwrap_or(0.0);
            follow(&mut self.row, (took - beside).max(0.0) / prompt_rows as f64);
        }
    }

    /// Prompt rows for a step with decode rows: as many as keep it within `target`, or as cost what the decode rows cost, if that is more.
    pub(super) fn prompt_rows(&self, target: Duration) -> usize {
        let Some(row) = self.row else {
            return FIRST_GUESS;
        };
        let decode = self.decode.unwrap_or(0.0);
        let bearable = (target.as_secs_f64() - decode).max(decode);
        // Nothing is dear if rows cost nothing; the cast saturates.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a quotient of numbers that are not negative, saturated"
        )]
        let rows = (bearable / row.max(1e-12)) as usize;
        rows.max(LEAST_ROWS)
    }
}

fn follow(known: &mut Option<f64>, seen: f64) {
    *known = Some(known.map_or(seen, |known| known + NEWS * (seen - known)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Steps of a machine on which decode rows cost `decode_ms` and a prompt row `row_us`; answers the rows and the milliseconds of the last.
    fn settle(pace: &mut Pace, target: Duration, decode_ms: u32, row_us: u32) -> (usize, u64) {
        let mut last = (0, 0);
        for _ in 0..40 {
            let rows = pace.prompt_rows(target).min(512);
            let rows_time = row_us * u32::try_from(rows).expect("few");
            let took = decode_ms * MS + Duration::from_micros(rows_time.into());
            pace.learn(rows, took);
            last = (rows, u64::try_from(took.as_millis()).expect("short"));
        }
        last
    }

    #[test]
    fn steps_keep_to_their_time() {
        let check = |target_ms: u32, decode_ms, row_us, expected: (usize, u64)| {
            let mut pace = Pace::default();
            pace.learn(0, decode_ms * MS);
            let found = settle(&mut pace, target_ms * MS, decode_ms, row_us);
            assert_eq!(found, expected, "{target_ms} {decode_ms} {row_us}");
        };
        check(50, 10, 100, (400, 50));
        // Decode rows take more than half of the time: as much again for prompts.
        check(50, 40, 1000, (40, 80));
        check(0, 8, 500, (16, 16));
        // A prompt comes on whatever it costs.
        check(50, 10, 100_000, (8, 810));
        // What bounds a step otherwise is not decided here.
        check(50, 1, 1, (512, 1));
    }

    #[test]
    fn a_machine_that_slows_down_is_followed() {
        let mut pace = Pace::default();
        pace.learn(0, 10 * MS);
        assert_eq!(settle(&mut pace, 50 * MS, 10, 100).0, 400);
        let (rows, took_ms) = settle(&mut pace, 50 * MS, 10, 400);
        assert!(
            (99..=101).contains(&rows) && took_ms <= 51,
            "{rows} {took_ms}"
        );
    }

    #[test]
    fn what_was_never_seen_alone_still_keeps_to_its_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.prompt_rows(50 * MS), FIRST_GUESS);
        let (rows, took_ms) = settle(&mut pace, 50 * MS, 10, 100);
        assert!(
            (390..=400).contains(&rows) && took_ms <= 50,
            "{rows} {took_ms}"
        );
    }
}
