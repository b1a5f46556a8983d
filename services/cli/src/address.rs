//! Where a service listens.

use std::{convert::Infallible, error::Error, fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use proto::{
    inference::v1::{
        inference_service_client::InferenceServiceClient, model_service_client::ModelServiceClient,
    },
    loader::v1::loader_service_client::LoaderServiceClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::failure::Failure;

/// Longest wait for a connection to be accepted; both services run close by.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message accepted from a service: log-probabilities of a long prompt exceed gRPC's usual 4 MiB.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Address of a service: `HOST:PORT`, `http://HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `HOST:PORT`.
    Tcp(String),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Address, Infallible> {
        Ok(match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.strip_prefix("//").unwrap_or(path).into()),
            None => Address::Tcp(
                text.trim_start_matches("http://")
                    .trim_end_matches('/')
                    .to_owned(),
            ),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(authority) => f.write_str(authority),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Connects to `peer` at this address.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the address cannot be one, [`Failure::Unreachable`] if nobody answers.
    pub(crate) async fn connect(&self, peer: Peer) -> Result<Channel, Failure> {
        let endpoint = self.endpoint().ok_or_else(|| {
            Failure::Usage(format!("`{self}` is neither HOST:PORT nor unix:PATH"))
        })?;
        endpoint
            .connect()
            .await
            .map_err(|error| Failure::Unreachable {
                peer,
                address: self.clone(),
                reason: root_cause(&error),
            })
    }

    fn endpoint(&self) -> Option<Endpoint> {
        let uri = match self {
            Address::Tcp(authority) => format!("http://{authority}"),
            Address::Unix(path) => format!("unix://{}", path.to_str()?),
        };
        Endpoint::from_shared(uri)
            .ok()
            .map(|endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT))
    }
}

/// Which of the two services is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The gRPC face of a device.
    Inference,
    /// The node's loader daemon.
    Loader,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Inference => "inference service",
            Peer::Loader => "loader daemon",
        })
    }
}

/// The innermost cause: the outer ones say only that a transport had an error.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Where the inference service is.
#[derive(Args, Clone, Debug)]
pub(crate) struct InferenceAddress {
    /// Inference service to talk to: HOST:PORT or unix:PATH
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "HEARTH_SERVER",
        hide_env_values = true,
        default_value = "127.0.0.1:50051"
    )]
    pub(crate) server: Address,
}

impl InferenceAddress {
    /// A client for generation.
    pub(crate) async fn inference(&self) -> Result<InferenceServiceClient<Channel>, Failure> {
        let channel = self.server.connect(Peer::Inference).await?;
        Ok(InferenceServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A client for the models of the device.
    pub(crate) async fn models(&self) -> Result<ModelServiceClient<Channel>, Failure> {
        let channel = self.server.connect(Peer::Inference).await?;
        Ok(ModelServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// A client for the daemon whose socket is at `socket`.
pub(crate) async fn loader(socket: PathBuf) -> Result<LoaderServiceClient<Channel>, Failure> {
    let channel = Address::Unix(socket).connect(Peer::Loader).await?;
    Ok(LoaderServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Address, shown: &str) {
        let address: Address = text.parse().expect("never fails");
        assert_eq!(address, expected);
        assert_eq!(address.to_string(), shown);
        assert!(address.endpoint().is_some(), "{text}");
    }

    #[test]
    fn every_spelling_is_understood() {
        check(
            "127.0.0.1:50051",
            Address::Tcp("127.0.0.1:50051".into()),
            "127.0.0.1:50051",
        );
        check("http://box:1/", Address::Tcp("box:1".into()), "box:1");
        check(
            "[::1]:50051",
            Address::Tcp("[::1]:50051".into()),
            "[::1]:50051",
        );
        check(
            "unix:/run/h.sock",
            Address::Unix("/run/h.sock".into()),
            "unix:/run/h.sock",
        );
        check(
            "unix:///run/h.sock",
            Address::Unix("/run/h.sock".into()),
            "unix:/run/h.sock",
        );
        check("unix:h.sock", Address::Unix("h.sock".into()), "unix:h.sock");
    }

    #[test]
    fn nonsense_has_no_endpoint() {
        assert!(Address::Tcp("a b".into()).endpoint().is_none());
    }
}
