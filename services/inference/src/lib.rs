//! The gRPC face of one device: requests in, token events out, models attached from the loader daemon.
//!
//! The way of a request: [`serve()`] has it answered by `inference_service`, which asks the `gate` for a pass; `request` checks its fields; `models` finds or attaches the model; `text_pool` makes tokens
//! of the prompt; the engine is asked; `events` makes messages of what it says; `answers` carries them to the transport. Whatever fails on the way is an `error`, and `status` decides what
//! the caller is told of it.
//!
//! **Invariant:** nothing here touches a device, a mapping or a tensor: what the engine and `weights` give is handed on.

mod answers;
pub mod config;
mod daemon;
mod deadline;
mod device;
mod error;
mod events;
mod faces;
mod gate;
mod generate;
mod health;
mod inference_service;
pub mod listen;
mod load;
mod message_limit;
mod model_service;
mod models;
mod numbers;
mod process;
mod request;
mod serve;
mod standby;
mod status;
mod text_pool;

pub use config::{Config, Flags};
pub use listen::{Address, Listener};
pub use process::{main_from, main_with};
pub use serve::{ServeError, serve};
