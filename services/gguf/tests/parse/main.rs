//! The parser from outside: what it makes of good files, of broken ones and of files that are not all there.

mod hostile;
mod hostile_tensors;
mod prefixes;
mod raw;
mod round_trip;
mod splits;
