//! Every operation on every device: against `reference`, bit by bit against itself, and with operands that must be refused.

mod attention;
mod elementwise;
mod hostile;
mod made;
mod matrix;
mod nonlinear;
mod refusals;
mod reproducible;
mod routing;
mod support;
mod truth;
