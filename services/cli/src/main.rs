//! `hearth`: one executable for people who serve language models from GGUF files.
//!
//! Most commands are clients of the two services; `inspect` needs neither, and `up` and `demo` start both as children of this same executable.

mod address;
mod bench;
mod chat;
mod child;
mod demo;
mod failure;
mod generate;
mod inspect;
mod load;
mod models;
mod output;
mod progress;
mod service;
mod status_text;
mod table;
mod top;
mod units;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Failure, exit};
use service::Service;

/// Serve language models from GGUF files, kept warm on the node and streamed over gRPC
#[derive(Parser)]
#[command(name = "hearth", version, max_term_width = 110, subcommand_required = true, arg_required_else_help = true, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hearth demo                                  see it work, with a small model that is built in
  hearth up --models ~/models                  serve every .gguf file below a directory
  hearth generate -m llama/8b 'Once upon'      stream a completion from another terminal
  cat prompt.txt | hearth generate -m llama/8b -
  hearth chat -m llama/8b                      talk with it
  hearth bench -m llama/8b --streams 1,8       how fast it is
  hearth inspect ~/models/llama/8b.gguf        what a file holds, without any service

Exit status: 0 done, 64 wrong usage or request, 65 unusable file, 66 no such file or model,
69 service away, 70 something failed, 75 busy or out of time, 77 not allowed,
78 cannot be served as configured, 130 interrupted";

#[derive(Subcommand)]
enum Command {
    /// Start both services and keep them running
    ///
    /// Starts the loader daemon and one inference service as children of this process and prints lines to paste into a shell. They go together: if one dies, the other is
    /// stopped and the exit status is not 0; if this process dies, however it dies, both die with it.
    Up(up::Up),
    /// Watch the built-in model answer cold, hot and warm
    ///
    /// Starts both services on private sockets and streams the same completion three times: with the model's file dropped from the page cache, again in the same process, and
    /// after the inference service was killed and started anew. The model is small and its weights are random: it babbles, but every byte takes the way that it takes for a
    /// large one, and the table at the end says where each came from.
    Demo(demo::Demo),
    /// Stream a completion to standard output
    ///
    /// A published model is attached when it is first asked for. Text comes as it is made; a summary goes to standard error when a person looks.
    Generate(generate::Generate),
    /// Talk with a model
    ///
    /// At a terminal, lines are edited, answers stream, and Ctrl-C cancels the answer that is running. From a pipe, every line is a message and every answer ends with a line break.
    Chat(chat::Chat),
    /// List the models and where they are
    Models(models::Models),
    /// Show what a GGUF file holds; needs no service
    Inspect(inspect::Inspect),
    /// Attach a model and bring its weights to the device
    ///
    /// Nothing has to be loaded before it is asked for; loading it first makes the first answer come sooner.
    Load(load::Load),
    /// Free a model's memory on the device
    Unload(load::Unload),
    /// Bring a model's file into the page cache
    ///
    /// Talks to the loader daemon alone: every inference service of the node then finds the model warm.
    Prefetch(load::Prefetch),
    /// Measure prefill, decode and time to first token
    ///
    /// Asks the service as any client does, so the figures hold for clients: prompts of drawn tokens, greedy answers that go on past the model's end, no prefix found again. One
    /// request goes ahead and is told apart, because it may wait for weights.
    Bench(bench::Bench),
    /// Watch what the models of a device are doing
    ///
    /// Steps (forward passes), how many of them worked for eight rows or more, waits for weights and bytes fetched, per second, from the counters that ModelService publishes.
    Top(top::Top),
    /// Run the loader daemon (as hearth-loader does)
    #[command(hide = true)]
    Loader(Box<Service<loader::Flags>>),
    /// Run the inference service (as hearth-inference does)
    #[command(hide = true)]
    Inference(Box<Service<inference::Flags>>),
}

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return usage(&error),
    };
    line.command
        .run()
        .unwrap_or_else(|failure| failure.report())
}

impl Command {
    fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Command::Up(up) => block_on(up.run()),
            Command::Demo(demo) => block_on(demo.run()),
            Command::Generate(generate) => block_on(generate.run()),
            Command::Chat(chat) => block_on(chat.run()),
            Command::Models(models) => block_on(models.run()),
            Command::Inspect(inspect) => inspect.run().map(|()| ExitCode::SUCCESS),
            Command::Load(load) => block_on(load.run()),
            Command::Unload(unload) => block_on(unload.run()),
            Command::Prefetch(prefetch) => block_on(prefetch.run()),
            Command::Bench(bench) => block_on(bench.run()),
            Command::Top(top) => block_on(top.run()),
            Command::Loader(service) => service.run(),
            Command::Inference(service) => service.run(),
        }
    }
}

/// Runs a client on this thread alone: children are started from here, and the kernel binds their lives to the thread that starts them.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::Child(format!("cannot start: {error}")))?;
    runtime.block_on(work).map(|()| ExitCode::SUCCESS)
}

/// Help goes to standard output and is no failure; a command line that cannot be read is explained on standard error.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is the only thing that can go wrong here, and then nobody reads.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(exit::USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
