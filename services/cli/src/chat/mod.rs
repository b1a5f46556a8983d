//! `hearth chat`: a conversation in the terminal, or line by line through a pipe.

mod command;
mod reader;
mod talk;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use proto::inference::v1::{
    GenerateRequest, GetModelRequest, generate_request::Prompt,
    inference_service_client::InferenceServiceClient,
};
use tonic::transport::Channel;

use crate::{
    address::InferenceAddress,
    failure::Failure,
    generate::{Choice, End, View, relay},
    output::{self, Stream},
    up::Stop,
};
use command::{HELP, Line};
use reader::{Input, Reader};
use talk::Talk;

/// Flags of `hearth chat`.
#[derive(Args, Debug)]
pub(crate) struct Chat {
    /// Model to talk to; may be left out when exactly one is attached
    #[arg(
        short,
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    model: String,
    /// Tell the model who it is, before all else
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    system: String,
    /// Further variables for the model's chat template, as a JSON object
    #[arg(
        long,
        value_name = "JSON",
        default_value = "",
        hide_default_value = true
    )]
    template_kwargs: String,
    /// Remember what is typed in this file, for the arrow keys next time
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// No summary after an answer
    #[arg(short, long)]
    quiet: bool,
    /// Give up on an answer after this time, waiting for the model included (10s, 5m)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    address: InferenceAddress,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    end: End,
}

impl Chat {
    /// Talks until there is nothing more to say.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
        self.check_model().await?;
        let client = self.address.inference().await?;
        let mut session = Session {
            reader: Reader::open(interactive, self.history.clone())?,
            stop: Stop::listen()?,
            talk: Talk::new(self.system.clone()),
            stderr: output::stderr(),
            chat: self,
            client,
            interactive,
        };
        session.greet()?;
        session.run().await
    }

    /// A name that nobody knows is told of before anything is typed.
    async fn check_model(&self) -> Result<(), Failure> {
        if self.model.is_empty() {
            return Ok(());
        }
        let request = GetModelRequest {
            model: self.model.clone(),
        };
        let mut models = self.address.models().await?;
        let answer = models.get_model(request).await;
        answer.map(drop).map_err(Failure::rpc("chat"))
    }
}

/// A conversation under way.
struct Session {
    chat: Chat,
    client: InferenceServiceClient<Channel>,
    reader: Reader,
    stop: Stop,
    talk: Talk,
    stderr: Stream,
    interactive: bool,
}

impl Session {
    fn greet(&mut self) -> io::Result<()> {
        if !self.interactive {
            return Ok(());
        }
        let name = match self.chat.model.as_str() {
            "" => "the attached model",
            name => name,
        };
        let name = output::one_line(name);
        self.note(&format!(
            "{name}: /help lists what can be typed besides messages, Ctrl-D leaves"
        ))
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let mut interrupted = false;
        loop {
            let input = tokio::select! {
                input = self.reader.line() => input?,
                () = self.stop.asked() => return Err(Failure::Interrupted),
            };
            match input {
                Input::Line(line) => {
                    interrupted = false;
                    if self.obey(&line).await?.is_none() {
                        return Ok(());
                    }
                }
                Input::Interrupted if interrupted => return Err(Failure::Interrupted),
                Input::Interrupted => {
                    interrupted = true;
                    self.note("Ctrl-C once more leaves")?;
                }
                Input::End => return Ok(()),
            }
        }
    }

    /// Does what a line asks for. `None`: the conversation is over.
    async fn obey(&mut self, line: &str) -> Result<Option<()>, Failure> {
        match command::read(line) {
            Line::Nothing => {}
            Line::Say(text) => self.answer(text.to_owned()).await?,
            Line::Help => {
                for (command, what) in HELP {
                    self.note(&format!("{command:<14}{what}"))?;
                }
                self.note("a line that ends in \\ goes on in the next; a message that begins with / is typed with //")?;
            }
            Line::Reset => {
                self.talk.reset();
                self.note("the conversation begins anew")?;
            }
            Line::System(None) => {
                let system = match self.talk.system() {
                    "" => "no system message".to_owned(),
                    system => format!("system message: {}", output::defused(system)),
                };
                self.note(&system)?;
            }
            Line::System(Some(text)) => {
                self.talk.set_system(text.to_owned());
                self.note("from the next message on")?;
            }
            Line::Quit => return Ok(None),
            Line::Unknown(line) if self.interactive => {
                let line = output::one_line(line);
                self.note(&format!(
                    "no command {line}: /help lists them, and // begins a message with a slash"
                ))?;
            }
            Line::Unknown(line) => {
                return Err(Failure::Usage(format!(
                    "no command `{}` in chat; begin a message with // for a slash",
                    output::one_line(line)
                )));
            }
        }
        Ok(Some(()))
    }

    /// Asks the model and shows what it says.
    async fn answer(&mut self, text: String) -> Result<(), Failure> {
        self.talk.ask(text);
        let mut call = tonic::Request::new(self.request());
        if let Some(timeout) = self.chat.timeout {
            call.set_timeout(timeout);
        }
        let mut view = View::new(false, false);
        let outcome = tokio::select! {
            outcome = relay(&mut self.client, call, &mut view) => outcome,
            () = self.stop.asked() => Err(Failure::Interrupted),
        };
        view.end_line()?;
        let said = view.measured().text.clone();
        match outcome {
            Ok(()) => {
                self.talk.answered(said);
                if self.interactive && !self.chat.quiet {
                    self.note(&view.measured().summary())?;
                }
                Ok(())
            }
            Err(failure) if !self.interactive || failure.ends_everything() => Err(failure),
            Err(Failure::Interrupted) => {
                // What was read is part of the conversation; what was not even begun was not said.
                match said.is_empty() {
                    true => self.talk.take_back(),
                    false => self.talk.answered(said),
                }
                Ok(self.note("cancelled")?)
            }
            Err(failure) => {
                self.talk.take_back();
                failure.say();
                Ok(self.note("your message was taken back; /reset begins anew, /help lists what else there is")?)
            }
        }
    }

    fn request(&self) -> GenerateRequest {
        let chat = &self.chat;
        GenerateRequest {
            model: chat.model.clone(),
            prompt: Some(Prompt::Chat(self.talk.to_proto(&chat.template_kwargs))),
            sampling: Some(chat.choice.to_proto()),
            stopping: Some(chat.end.to_proto()),
            ..GenerateRequest::default()
        }
    }

    /// Says something about the conversation, beside it.
    fn note(&mut self, text: &str) -> io::Result<()> {
        let text = self.stderr.style.dim(text);
        self.stderr.line(text)
    }
}
