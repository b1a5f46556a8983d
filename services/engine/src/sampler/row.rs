//! Passes over a row that compilers turn into vector code: in blocks, with a fixed number of lanes, so that the numbers are the same on every machine.

/// Logits that are looked at as one.
pub(super) const BLOCK: usize = 256;
/// Running values side by side.
pub(super) const LANES: usize = 16;

/// The token with the highest logit; the lowest id on a tie. NaN is never chosen; token 0 if nothing is possible.
pub fn most_likely(row: &[f32]) -> u32 {
    let mut best = f32::NEG_INFINITY;
    let mut place = 0;
    for (block, logits) in row.chunks(BLOCK).enumerate() {
        let highest = max(logits);
        if highest > best {
            best = highest;
            place = block * BLOCK;
        }
    }
    let block = &row[place..row.len().min(place + BLOCK)];
    let within = block.iter().position(|&logit| logit == best);
    // Without any that is above -∞ nothing was ever found to be best.
    within
        .filter(|_| best > f32::NEG_INFINITY)
        .map_or(0, |within| id(place + within))
}

/// The highest of some logits, NaN left out; -∞ of none.
pub(super) fn max(logits: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (rows, rest) = logits.as_chunks::<LANES>();
    for row in rows {
        for (lane, &logit) in lanes.iter_mut().zip(row) {
            *lane = higher(*lane, logit);
        }
    }
    let all = lanes.into_iter().chain(rest.iter().copied());
    all.fold(f32::NEG_INFINITY, higher)
}

/// A place in a row as a token.
pub(super) fn id(place: usize) -> u32 {
    u32::try_from(place).expect("vocabularies are counted in 32 bits")
}
